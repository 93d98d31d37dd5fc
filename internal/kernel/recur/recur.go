// Package recur runs recurrent cells over sequences, forward and backward. Package op (RecurrentAttrs) has the formulas.
//
// Terminology: x is the projected input [Batch, Time, Gates·Units]; u the recurrent weights [Units, Gates·Units]; a state is [Batch, Units]. At each step a row (a
// sequence of the batch) adds the product of its state and u, and the cell turns that into the next state.
//
// The batch is cut into chunks of rows that go through all steps on their own, so there is no waiting between steps; weights are packed once a run. Chunks
// depend on the batch alone, so results are the same bits for any number of threads.
//
//go:generate go run -C ../vec/_asm ./recur -pkg recur -out ../../recur/recur_amd64.s -stubs ../../recur/stubs_amd64.go
package recur

import (
	"fmt"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/kernel/vec"
	"github.com/jouleml/joule/internal/kernel/wgemm"
	"github.com/jouleml/joule/internal/par"
)

// Cell is a kind of recurrent cell.
type Cell int

// The cells.
const (
	Tanh Cell = iota
	ReLU
	GRU
	LSTM
	GRU1 // a GRU whose reset gate is before the product
)

// Gates is how many values for each unit the projected input has.
func (c Cell) Gates() int { return [...]int{1, 1, 3, 4, 3}[c] }

// Spec says what a Plan computes.
type Spec struct {
	Cell               Cell
	Batch, Time, Units int
	Reverse            bool // from the last step to the first
	Bits, Group        int  // of recurrent weights of few bits (package wgemm): Operands.W and Scale in place of U; 0: floats
}

// chunkRows is the most rows of a chunk: so many share a read of the weights.
const chunkRows = 18

// Plan is a Spec with its tables and scratch memory. One Run or Backward at a time.
type Plan struct {
	Spec
	level   isa.Level
	wide    int       // Gates·Units
	rows    int       // of a chunk
	weights           // all of them, or those of a GRU1's first two gates
	third   weights   // of a GRU1's third gate
	own     []float32 // memory for packed
	work    []*worker
	few     *wgemm.Plan // of the product with weights of few bits, for packing; of a GRU1's first two gates
	few3    *wgemm.Plan // of a GRU1's third gate

	sequence, wideSeq, state, local, localWide []int // offsets of rows: in [B T H], [B T g·H], [B H], and in scratch

	sigmoid, tanh vec.UnaryFunc
	add, sub, mul vec.BinaryVVFunc
	reluGrad      vec.BinaryVVFunc
	mulAdd        vec.MulAddVVVFunc
	affine        vec.MulAddVSSFunc
	relu          vec.UnaryFunc
	leaf          *leaves   // nil: plain Go
	parts         []part    // of steps that threads share
	sums          []float32 // [Gates·Units]: of one row's step that threads share
	ops           Operands
	grads         Gradients
}

// weights are packed for products.
type weights struct {
	panels gemm.Panels
	packed []float32
}

// Operands are what a Run reads and writes. Those that a cell does not have are nil.
type Operands struct {
	X       []float32 // [Batch, Time, Gates·Units]
	U       []float32 // [Units, Gates·Units]
	Packed  []float32 // for Run: what PackU made of U, if it is at hand
	W       []uint8   // weights of few bits [Gates·Units, Units] in place of U, packed as Few says
	Scale   []float32 // their scales
	W3      []uint8   // of a GRU1 the third gate's, the others being in W
	Scale3  []float32
	H0, C0  []float32 // [Batch, Units]; C0 of an LSTM
	Bias    []float32 // [Gates·Units], of a GRU's product
	Lengths []int32   // [Batch] or nil: steps from there on leave the state as it is
	Mask    []float32 // [Batch, Units] or nil: factors of the state in the product
	States  []float32 // [Batch, Time, Units]
	Cells   []float32 // [Batch, Time, Units]: cells of an LSTM, third product of a GRU, its operand of a GRU1
	Gate    []float32 // [Batch, Time, Gates·Units], of all but the plain cells; nil for Run: nobody asks for it
}

// Gradients are what Backward reads and writes beside the Operands (X and Bias aside).
type Gradients struct {
	DStates, DCells []float32 // [Batch, Time, Units]; DCells may be nil
	DX              []float32 // [Batch, Time, Gates·Units]
	DQ              []float32 // likewise: of a GRU's product
	DH0, DC0        []float32 // [Batch, Units]; DC0 of an LSTM
}

// worker is the scratch memory of one thread.
type worker struct {
	tile   gemm.Tile
	seg    [1]gemm.Seg
	h      []float32 // [rows, Units]: masked states, or the gradient that comes from later steps
	q      []float32 // [rows, Gates·Units]: products, where they are not to be kept
	dh, dc []float32 // [rows, Units]
	a, b   []float32 // [Units]
	c      []float32
	few    *wgemm.Plan // of the product with weights of few bits, and its rows and results
	few3   *wgemm.Plan
	fx, fy []float32 // [rows, Units], [rows, Gates·Units]
}

// New plans. It panics if s contradicts itself.
func New(s Spec) *Plan {
	if s.Cell < Tanh || s.Cell > GRU1 || s.Batch < 0 || s.Time < 0 || s.Units < 1 {
		panic(fmt.Sprintf("recur: bad spec %+v", s))
	}
	p := &Plan{Spec: s, level: isa.Current(), wide: s.Cell.Gates() * s.Units}
	p.rows = max(1, min(chunkRows, (s.Batch+1)/2))
	if s.Batch <= fewRows {
		p.rows = max(1, s.Batch)
	}
	p.sequence, p.wideSeq = multiples(p.rows, s.Time*s.Units), multiples(p.rows, s.Time*p.wide)
	p.state, p.local, p.localWide = multiples(p.rows, s.Units), multiples(p.rows, s.Units), multiples(p.rows, p.wide)
	if s.Bits != 0 {
		p.few, p.few3 = p.fewPlans()
	}
	p.sigmoid, p.tanh, p.relu = vec.Unary(vec.Sigmoid), vec.Unary(vec.Tanh), vec.Unary(vec.Relu)
	p.add, p.sub, p.mul, p.reluGrad = vec.Binary(vec.Add), vec.Binary(vec.Sub), vec.Binary(vec.Mul), vec.Binary(vec.ReluGrad)
	p.mulAdd, p.affine = vec.MulAdd(), vec.MulAddVSS()
	p.leaf = table[p.level]
	return p
}

func multiples(n, step int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i * step
	}
	return out
}

// forward is how weights are laid out for Run, backward for Backward, whose products are with the transpose.
func (p *Plan) forward() (all, third gemm.Panels) {
	if p.Cell == GRU1 {
		return gemm.NewPanels(p.Units, 2*p.Units), gemm.NewPanels(p.Units, p.Units)
	}
	return gemm.NewPanels(p.Units, p.wide), gemm.Panels{}
}

func (p *Plan) backward() (all, third gemm.Panels) {
	if p.Cell == GRU1 {
		return gemm.NewPanels(2*p.Units, p.Units), gemm.NewPanels(p.Units, p.Units)
	}
	return gemm.NewPanels(p.wide, p.Units), gemm.Panels{}
}

// PackedLen is the number of floats that PackU writes.
func (p *Plan) PackedLen() int {
	all, third := p.forward()
	return all.Len() + third.Len()
}

// Layout names the order of what PackU writes. Plans of one cell and size with the same layout, on the same instruction set, can share it.
func (p *Plan) Layout() string {
	if p.streams() {
		return "blocks"
	}
	return "panels"
}

// PackU copies weights into the order in which Run reads them, for Operands.Packed.
func (p *Plan) PackU(dst, u []float32) {
	if p.streams() {
		p.packStream(dst, u)
		return
	}
	all, third := p.forward()
	p.pack(dst, u, all, third, false)
}

func (p *Plan) pack(dst, u []float32, all, third gemm.Panels, trans bool) {
	if all.Pack(dst, u, p.wide, trans); p.Cell == GRU1 {
		third.Pack(dst[all.Len():], u[2*p.Units:], p.wide, trans)
	}
}

// ScratchBytes is about what a plan holds for so many threads.
func (p *Plan) ScratchBytes(threads int) int {
	return 4 * (p.Units*p.wide + threads*p.rows*(p.wide+3*p.Units))
}

func (p *Plan) prepare(pool *par.Pool, backward bool) {
	if isa.Current() != p.level {
		panic("recur: the plan was made for another instruction set")
	}
	seq, state := p.Batch*p.Time*p.Units, p.Batch*p.Units
	g := p.Cell.Gates()
	short := func(what string, x []float32, n int) {
		if len(x) < n {
			panic("recur: " + what + " too short")
		}
	}
	if p.few == nil {
		short("u", p.ops.U, p.Units*p.wide)
	}
	short("the first state", p.ops.H0, state)
	short("the states", p.ops.States, seq)
	if p.Cell >= GRU {
		short("cells", p.ops.Cells, seq)
		if backward || p.ops.Gate != nil {
			short("gates", p.ops.Gate, g*seq)
		}
	}
	if p.Cell == LSTM {
		short("the first cell", p.ops.C0, state)
	}
	if p.ops.Mask != nil {
		short("the mask", p.ops.Mask, state)
	}
	if p.ops.Lengths != nil && len(p.ops.Lengths) < p.Batch {
		panic("recur: lengths too short")
	}
	if backward {
		short("gradients of states", p.grads.DStates, seq)
		short("gradients of x", p.grads.DX, g*seq)
		short("gradients of the first state", p.grads.DH0, state)
		if p.Cell == GRU {
			short("gradients of products", p.grads.DQ, g*seq)
		}
		if p.Cell == LSTM {
			short("gradients of the first cell", p.grads.DC0, state)
		}
		p.panels, p.third.panels = p.backward()
	} else {
		short("x", p.ops.X, g*seq)
		if p.Cell == GRU {
			short("the bias", p.ops.Bias, p.wide)
		}
		p.panels, p.third.panels = p.forward()
	}
	if p.packed = p.ops.Packed; p.packed == nil && p.few == nil {
		if n := p.panels.Len() + p.third.panels.Len(); len(p.own) < n {
			p.own = make([]float32, n)
		}
		if p.packed = p.own; backward {
			p.pack(p.packed, p.ops.U, p.panels, p.third.panels, true)
		} else {
			p.PackU(p.packed, p.ops.U)
		}
	}
	if p.Cell == GRU1 && p.few == nil {
		p.third.packed = p.packed[p.panels.Len():]
	}
	for len(p.work) < pool.Threads() {
		w := &worker{h: make([]float32, p.rows*p.Units), dh: make([]float32, p.rows*p.Units), dc: make([]float32, p.rows*p.Units)}
		w.tile.Segs, w.tile.Act, w.tile.AStride = w.seg[:], gemm.None, 1
		if p.Cell >= GRU {
			w.q = make([]float32, p.rows*p.wide)
		}
		if p.few != nil {
			w.few, w.few3 = p.fewPlans()
			w.fx, w.fy = make([]float32, p.rows*p.Units), make([]float32, p.rows*p.wide)
		}
		w.a, w.b, w.c = make([]float32, p.Units), make([]float32, p.Units), make([]float32, p.Units)
		p.work = append(p.work, w)
	}
}

// fewPlans are the products of a chunk's rows with weights of few bits: of all gates, or of a GRU1's first two and of its third.
func (p *Plan) fewPlans() (all, third *wgemm.Plan) {
	s := wgemm.Spec{M: p.rows, N: p.wide, K: p.Units, Bits: p.Bits, Group: p.Group}
	if p.Cell != GRU1 {
		return wgemm.New(s), nil
	}
	s.N = 2 * p.Units
	all = wgemm.New(s)
	s.N = p.Units
	return all, wgemm.New(s)
}

// Few is the product with weights of few bits, which says how they are packed, and of a GRU1 the products with the first two gates' and with the third's; nil with floats.
func (p *Plan) Few() (all, third *wgemm.Plan) { return p.few, p.few3 }

// fewProduct is product with weights of few bits.
func (p *Plan) fewProduct(pool *par.Pool, w *worker, a []float32, aOff []int, c []float32, cOff []int, in, bias []float32) {
	p.fewTimes(pool, w, w.few, p.ops.W, p.ops.Scale, a, aOff, c, cOff, in, bias)
}

// fewTimes is fewProduct with weights of one's choice.
func (p *Plan) fewTimes(pool *par.Pool, w *worker, few *wgemm.Plan, weights []uint8, scale, a []float32, aOff []int, c []float32, cOff []int, in, bias []float32) {
	n := len(aOff)
	for r, at := range aOff {
		copy(w.fx[r*p.Units:][:p.Units], a[at:])
	}
	few.Rows(n)
	few.Run(pool, w.fy, w.fx, weights, scale)
	for r, at := range cOff {
		y, to := w.fy[r*few.N:][:few.N], c[at:][:few.N]
		switch {
		case in != nil:
			p.add(to, in[at:][:few.N], y)
		case bias != nil:
			p.add(to, y, bias)
		default:
			copy(to, y)
		}
	}
}

// product sets c to a·packed + in + bias: rows of a at aOff, of c and in at cOff; depth is the length of a row of a.
func (p *Plan) product(w *worker, a []float32, aOff []int, depth int, c []float32, cOff []int, in, bias []float32) {
	if p.few != nil {
		p.fewProduct(nil, w, a, aOff, c, cOff, in, bias)
		return
	}
	p.times(&p.weights, w, a, aOff, depth, c, cOff, in, bias)
}

// times is product with packed weights of one's choice.
func (p *Plan) times(by *weights, w *worker, a []float32, aOff []int, depth int, c []float32, cOff []int, in, bias []float32) {
	for i := range by.panels.Count() {
		by.panel(w, i, a, aOff, depth, c, cOff, in, bias)
	}
}

// panel is times for the columns of one panel.
func (by *weights) panel(w *worker, i int, a []float32, aOff []int, depth int, c []float32, cOff []int, in, bias []float32) {
	t := &w.tile
	w.seg[0] = gemm.Seg{Len: depth}
	t.A, t.AOff, t.COff = a, aOff, cOff
	off, ldb, j, cols := by.panels.Panel(i)
	t.B, t.LDB, t.Cols, t.C, t.In, t.Bias = by.packed[off:], ldb, cols, c[j:], nil, nil
	if in != nil {
		t.In = in[j:]
	}
	if bias != nil {
		t.Bias = bias[j:]
	}
	t.Run()
}

// chunks is the number of chunks of rows, chunk the rows [lo, lo+n) of chunk i.
func (p *Plan) chunks() int { return (p.Batch + p.rows - 1) / p.rows }

func (p *Plan) chunk(i int) (lo, n int) { return i * p.rows, min(p.rows, p.Batch-i*p.rows) }

// time is the time of step s, before that of the step before (-1: none).
func (p *Plan) time(s int) (t, before int) {
	if p.Reverse {
		if s == 0 {
			return p.Time - 1, -1
		}
		return p.Time - 1 - s, p.Time - s
	}
	return s, s - 1
}

// ended reports whether row b's sequence has no step at time t.
func (p *Plan) ended(b, t int) bool { return p.ops.Lengths != nil && t >= int(p.ops.Lengths[b]) }

// seq is where row b's values at time t begin in [Batch, Time, n].
func (p *Plan) seq(b, t, n int) int { return (b*p.Time + t) * n }

// last is row b of the states (or cells) before a step.
func (p *Plan) last(states, first []float32, b, before int) []float32 {
	if before < 0 {
		return first[b*p.Units:][:p.Units]
	}
	return states[p.seq(b, before, p.Units):][:p.Units]
}
