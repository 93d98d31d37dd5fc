package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Recurrences over the time axis of a sequence, h_t = f(h_{t-1}, x_t), and their gradient. The products of all x_t with their weights are made beforehand, in
// one; each step adds the product of h_{t-1} and applies the cell.
var RecurrentOp, RecurrentGradOp *graph.Op

// RecurrentAttrs are the attributes of RecurrentOp and RecurrentGradOp. With x the operand at a step and h·u the product,
//
//	tanh   h' = tanh(x + h·u);  relu likewise
//	lstm   i, f, g, o = x + h·u, each of H;  c' = σ(f)·c + σ(i)·tanh(g);  h' = σ(o)·tanh(c')   (Hochreiter & Schmidhuber 1997, Gers et al. 2000)
//	gru    z, r, n of x and of q = h·u + b;  z, r = σ(x + q);  n' = tanh(x + r·q);  h' = z·h + (1-z)·n'   (Cho et al., arXiv:1406.1078, the product before the gate)
//	gru1   z, r = σ(x + h·u);  n' = tanh(x + (r·h)·u);  h' = z·h + (1-z)·n'   (the same paper's first form, the gate before the product)
//
// The order of the gates is Keras's.
type RecurrentAttrs struct {
	Cell     string // lstm, gru, gru1, tanh or relu
	Reverse  bool   // from the last step to the first
	Lengths  bool   // an operand i32 [B]: at steps from the length on, the state stays as it is
	Mask     bool   // an operand [B H] that h_{t-1} is multiplied with in the product: dropout that is the same at all steps
	CellGrad bool   // of the gradient of an lstm: there is a gradient for the cells c, too
	Bits     int    `json:",omitempty"` // 8 or 4: u is weights of few bits [g·H H] with scales as another operand behind it (WeightAttrs), and has no gradient
	Group    int    `json:",omitempty"` // of those weights
	BF16     bool   `json:",omitempty"` // the weights' gradient is a product of bf16, added up in f32; steps are not
}

// weights are the attributes of the product with weights of few bits of h units.
func (a RecurrentAttrs) weights(h int) WeightAttrs { return WeightAttrs{a.Bits, a.Group, h} }

// gates is how many values of H an element of the operand has, 0 for an unknown cell.
func (a RecurrentAttrs) gates() int {
	return map[string]int{"lstm": 4, "gru": 3, "gru1": 3, "tanh": 1, "relu": 1}[a.Cell]
}

// recurrence names operands and results.
type recurrence struct {
	RecurrentAttrs
	b, t, h, g                           int
	x, u, scale, h0, c0, bias            *node
	lengths, mask                        *node
	hs, cells, gate, dhs, dcs            *node // of the gradient's operands; cells is q of a gru, r·h of a gru1
	types                                struct{ seq, wide, state typ }
	count                                int // operands
	xType, uType, hType, cType, biasType int // where operands are, -1: none; scales of u are behind it
	lengthsType, maskType                int
}

// layout finds out where operands are. The gradient has the same operands but x and bias, and then hs, cells, gate, dhs and dcs.
func (a RecurrentAttrs) layout(gradient bool) (r recurrence) {
	r.RecurrentAttrs = a
	next := func(there bool) int {
		if !there {
			return -1
		}
		r.count++
		return r.count - 1
	}
	r.xType, r.uType = next(!gradient), next(true)
	next(a.Bits != 0)
	r.hType = next(true)
	r.cType, r.biasType = next(a.Cell == "lstm"), next(a.Cell == "gru" && !gradient)
	r.lengthsType, r.maskType = next(a.Lengths), next(a.Mask)
	return r
}

// with fills in the operands.
func (r *recurrence) with(in []*node) {
	at := func(i int) *node {
		if i < 0 {
			return nil
		}
		return in[i]
	}
	if r.Bits != 0 {
		r.scale = at(r.uType + 1)
	}
	r.x, r.u, r.h0, r.c0, r.bias, r.lengths, r.mask = at(r.xType), at(r.uType), at(r.hType), at(r.cType), at(r.biasType), at(r.lengthsType), at(r.maskType)
}

// check verifies operands, those of the gradient after the first r.count aside.
func (r *recurrence) check(in []typ, seq shape.Shape) error {
	r.g = r.gates()
	if r.g == 0 {
		return fmt.Errorf("there is no cell %q (known: lstm, gru, gru1, tanh, relu)", r.Cell)
	}
	if len(in) < r.count {
		return fmt.Errorf("takes %d operands, was given %d", r.count, len(in))
	}
	u := in[r.uType]
	if r.Bits != 0 {
		if r.xType < 0 {
			return fmt.Errorf("weights of few bits have no gradient")
		}
		h := in[r.hType]
		if len(h.Shape) != 2 || h.Shape[1] < 1 || h.DType != dtype.F32 {
			return fmt.Errorf("the first state must be f32 [B H], not %v", h)
		}
		n, err := r.weights(h.Shape[1]).check(u, in[r.uType+1])
		if err != nil {
			return err
		}
		if n != r.g*h.Shape[1] {
			return fmt.Errorf("the weights of a %s must be [%d·H H], not %v", r.Cell, r.g, u)
		}
		u = f32(h.Shape[1], n)
	}
	if !u.DType.IsFloat() || len(u.Shape) != 2 || u.Shape[1] != r.g*u.Shape[0] || u.Shape[0] == 0 {
		return fmt.Errorf("the weights of a %s must be floats [H %d·H], not %v", r.Cell, r.g, u)
	}
	r.h = u.Shape[0]
	if len(seq) != 3 || seq[2]%r.h != 0 {
		return fmt.Errorf("takes sequences [B T n·%d], not %v", r.h, seq)
	}
	r.b, r.t = seq[0], seq[1]
	of := func(dims ...int) typ { return typ{DType: u.DType, Shape: shape.Of(dims...)} }
	r.types.seq, r.types.wide, r.types.state = of(r.b, r.t, r.h), of(r.b, r.t, r.g*r.h), of(r.b, r.h)
	for _, c := range []struct {
		what string
		at   int
		want typ
	}{
		{"the sequence", r.xType, r.types.wide}, {"the first state", r.hType, r.types.state}, {"the first cell", r.cType, r.types.state}, {"the bias", r.biasType, of(r.g * r.h)},
		{"lengths", r.lengthsType, graph.T(dtype.I32, r.b)}, {"the mask", r.maskType, r.types.state},
	} {
		if c.at >= 0 && !in[c.at].Equal(c.want) {
			return fmt.Errorf("%s must be %v, not %v", c.what, c.want, in[c.at])
		}
	}
	return nil
}

// results are the types of RecurrentOp's results: the states, then what the gradient needs.
func (r *recurrence) results() []typ {
	switch r.Cell {
	case "lstm", "gru", "gru1":
		return []typ{r.types.seq, r.types.seq, r.types.wide}
	}
	return []typ{r.types.seq}
}

// step is [B n] of [B T n] at time t.
func (r *recurrence) step(x *node, t int) *node {
	return Reshape(SliceAxis(x, 1, t, t+1), r.b, x.Shape()[2])
}

// stack is the inverse of step.
func (r *recurrence) stack(steps []*node) *node {
	all := make([]*node, len(steps))
	for t, s := range steps {
		all[t] = Reshape(s, r.b, 1, s.Shape()[1])
	}
	return Concat(1, all...)
}

// part is gate i of [B g·H].
func (r *recurrence) part(x *node, i int) *node { return SliceAxis(x, 1, i*r.h, (i+1)*r.h) }

// when is a at sequences that reach time t, else b.
func (r *recurrence) when(t int, a, b *node) *node {
	if r.lengths == nil {
		return a
	}
	live := Reshape(Gt(r.lengths, Like(r.lengths, float64(t))), r.b, 1)
	return Select(BroadcastTo(live, a.Shape()...), a, b)
}

// order is the times in the order of the steps.
func (r *recurrence) order() []int {
	out := make([]int, r.t)
	for i := range out {
		if out[i] = i; r.Reverse {
			out[i] = r.t - 1 - i
		}
	}
	return out
}

func (r *recurrence) masked(h *node) *node {
	if r.mask == nil {
		return h
	}
	return Mul(h, r.mask)
}

// product is h times the weights.
func (r *recurrence) product(h *node) *node {
	if r.scale != nil {
		return QMatMul(h, r.u, r.scale, r.weights(r.h))
	}
	return MatMul(h, r.u)
}

// unrolled is the recurrence step by step.
func (r *recurrence) unrolled() []*node {
	hs, cells, gate := make([]*node, r.t), make([]*node, r.t), make([]*node, r.t)
	h, c := r.h0, r.c0
	for _, t := range r.order() {
		x, before := r.step(r.x, t), r.masked(h)
		var q *node
		if r.Cell != "gru1" {
			q = r.product(before)
		}
		var h1, kept, g *node
		switch r.Cell {
		case "gru1":
			third := func(x *node) *node { return MatMul(x, SliceAxis(r.u, 1, 2*r.h, 3*r.h)) }
			if r.Bits == 0 {
				q = MatMul(before, SliceAxis(r.u, 1, 0, 2*r.h))
			} else { // weights of few bits are not cut
				q, third = r.product(before), func(x *node) *node { return r.part(r.product(x), 2) }
			}
			z, reset := Sigmoid(Add(r.part(x, 0), r.part(q, 0))), Sigmoid(Add(r.part(x, 1), r.part(q, 1)))
			kept = Mul(reset, before)
			n := Tanh(Add(r.part(x, 2), third(kept)))
			h1 = Add(n, Mul(z, Sub(h, n)))
			kept, g = r.when(t, kept, zeros(kept)), Concat(1, z, reset, n)
		case "lstm":
			z := Add(x, q)
			in, forget, cell, out := Sigmoid(r.part(z, 0)), Sigmoid(r.part(z, 1)), Tanh(r.part(z, 2)), Sigmoid(r.part(z, 3))
			c = r.when(t, Add(Mul(forget, c), Mul(in, cell)), c)
			h1, kept, g = Mul(out, Tanh(c)), c, Concat(1, in, forget, cell, out)
		case "gru":
			q = Add(q, r.bias)
			z, reset := Sigmoid(Add(r.part(x, 0), r.part(q, 0))), Sigmoid(Add(r.part(x, 1), r.part(q, 1)))
			n := Tanh(Add(r.part(x, 2), Mul(reset, r.part(q, 2))))
			h1 = Add(n, Mul(z, Sub(h, n)))
			kept, g = r.part(q, 2), Concat(1, z, reset, n)
			kept = r.when(t, kept, zeros(kept))
		case "tanh":
			h1 = Tanh(Add(x, q))
		default:
			h1 = Relu(Add(x, q))
		}
		h = r.when(t, h1, h)
		hs[t], cells[t] = h, kept
		if g != nil {
			gate[t] = r.when(t, g, zeros(g))
		}
	}
	if gate[0] == nil {
		return []*node{r.stack(hs)}
	}
	return []*node{r.stack(hs), r.stack(cells), r.stack(gate)}
}

// before is the states before each step, in the order of time.
func (r *recurrence) before(states, first *node) *node {
	n := states.Shape()[2]
	start := Reshape(first, r.b, 1, n)
	switch {
	case r.t == 1:
		return start
	case r.Reverse:
		return Concat(1, SliceAxis(states, 1, 1, r.t), start)
	}
	return Concat(1, start, SliceAxis(states, 1, 0, r.t-1))
}

// back is the gradient step by step: of x, of h·u + b (gru), of the first state, of the first cell (lstm).
func (r *recurrence) back() []*node {
	dxs, dqs := make([]*node, r.t), make([]*node, r.t)
	order := r.order()
	ut := Transpose(r.u, 1, 0)
	before := r.before(r.hs, r.h0)
	var cellsBefore *node
	if r.Cell == "lstm" {
		cellsBefore = r.before(r.cells, r.c0)
	}
	one := Like(r.h0, 1)
	slope := func(y *node) *node { return Mul(y, Sub(one, y)) } // of σ
	bend := func(y *node) *node { return Sub(one, Mul(y, y)) }  // of tanh
	dh, dc := zeros(r.h0), zeros(r.h0)
	for i := range order {
		t := order[r.t-1-i]
		dh = Add(dh, r.step(r.dhs, t))
		h := r.step(before, t)
		var dx, dq, through *node // through: what passes by the product to the state before
		switch r.Cell {
		case "lstm":
			if r.dcs != nil {
				dc = Add(dc, r.step(r.dcs, t))
			}
			g := r.step(r.gate, t)
			in, forget, cell, out := r.part(g, 0), r.part(g, 1), r.part(g, 2), r.part(g, 3)
			tc := Tanh(r.step(r.cells, t))
			d := Add(dc, Mul(Mul(dh, out), bend(tc)))
			dx = Concat(1, Mul(Mul(d, cell), slope(in)), Mul(Mul(d, r.step(cellsBefore, t)), slope(forget)), Mul(Mul(d, in), bend(cell)), Mul(Mul(dh, tc), slope(out)))
			dc = r.when(t, Mul(d, forget), dc)
			through = zeros(dh)
		case "gru":
			g, q := r.step(r.gate, t), r.step(r.cells, t)
			z, reset, n := r.part(g, 0), r.part(g, 1), r.part(g, 2)
			dz := Mul(Mul(dh, Sub(h, n)), slope(z))
			dn := Mul(Mul(dh, Sub(one, z)), bend(n))
			dr := Mul(Mul(dn, q), slope(reset))
			dx, dq = Concat(1, dz, dr, dn), Concat(1, dz, dr, Mul(dn, reset))
			through = Mul(dh, z)
		case "gru1":
			g := r.step(r.gate, t)
			z, reset, n := r.part(g, 0), r.part(g, 1), r.part(g, 2)
			dz := Mul(Mul(dh, Sub(h, n)), slope(z))
			dn := Mul(Mul(dh, Sub(one, z)), bend(n))
			drh := MatMul(dn, SliceAxis(ut, 0, 2*r.h, 3*r.h)) // of r·h
			dr := Mul(Mul(drh, r.masked(h)), slope(reset))
			dx = Concat(1, dz, dr, dn)
			dx = r.when(t, dx, zeros(dx))
			dm := Add(Mul(drh, reset), MatMul(Concat(1, dz, dr), SliceAxis(ut, 0, 0, 2*r.h)))
			dxs[t], dqs[t] = dx, dx
			dh = r.when(t, Add(Mul(dh, z), r.masked(dm)), dh)
			continue
		case "tanh":
			dx, through = Mul(dh, bend(r.step(r.hs, t))), zeros(dh)
		default:
			dx, through = ReluGrad(r.step(r.hs, t), dh), zeros(dh)
		}
		if dq == nil {
			dq = dx
		}
		dx, dq = r.when(t, dx, zeros(dx)), r.when(t, dq, zeros(dq))
		dxs[t], dqs[t] = dx, dq
		dh = r.when(t, Add(through, r.masked(MatMul(dq, ut))), dh)
	}
	out := []*node{r.stack(dxs)}
	if r.Cell == "gru" {
		out = append(out, r.stack(dqs))
	}
	out = append(out, dh)
	if r.Cell == "lstm" {
		out = append(out, dc)
	}
	return out
}

// weightGrad is xᵀ·d, the gradient of weights over all steps: x [B·T, m], d [B·T, n].
func (r *recurrence) weightGrad(x, d *node) *node {
	a := DotAttrs{ContractA: []int{0}, ContractB: []int{0}}
	if r.BF16 && x.DType() == dtype.F32 {
		x, d, a.Out = Convert(x, dtype.BF16), Convert(d, dtype.BF16), dtype.F32
	}
	return Dot(x, d, a)
}

// resetFirst fills in the gradients of a gru1's weights and mask: the third product's operand is the kept r·h. dq is the gradient of the sums, before the states before.
func (r *recurrence) resetFirst(n, dq, before *node, out []*node) {
	rows := r.b * r.t
	flat := func(x *node) *node { return Reshape(x, rows, x.Shape()[2]) }
	first, third := flat(SliceAxis(dq, 2, 0, 2*r.h)), flat(SliceAxis(dq, 2, 2*r.h, 3*r.h))
	over := func(x, d *node) *node { return r.weightGrad(flat(x), d) }
	masked := before
	if r.mask != nil {
		masked = Mul(before, BroadcastTo(Reshape(r.mask, r.b, 1, r.h), r.b, r.t, r.h))
		ut := Transpose(r.u, 1, 0)
		drh := Mul(flat(SliceAxis(n.Part(2), 2, r.h, 2*r.h)), MatMul(third, SliceAxis(ut, 0, 2*r.h, 3*r.h)))
		dm := Add(MatMul(first, SliceAxis(ut, 0, 0, 2*r.h)), drh)
		out[r.maskType] = Sum(Mul(before, Reshape(dm, r.b, r.t, r.h)), 1)
	}
	out[r.uType] = Concat(1, over(masked, first), over(n.Part(1), third))
}

// Recurrent runs a cell over x [B T g·H] with weights u [H g·H], from states h0 and, of an lstm, c0 [B H]; bias [g·H] is for a gru alone. lengths and mask may be nil. It
// gives the states [B T H], and of an lstm its cells.
func Recurrent(x, u, h0, c0, bias, lengths, mask *node, a RecurrentAttrs) (states, cells *node) {
	return recurrent([]*node{x, u, h0}, c0, bias, lengths, mask, a)
}

// QRecurrent is Recurrent with weights u [g·H H] of few bits and their scales, as WeightAttrs says.
func QRecurrent(x, u, scale, h0, c0, bias, lengths, mask *node, a RecurrentAttrs) (states, cells *node) {
	return recurrent([]*node{x, u, scale, h0}, c0, bias, lengths, mask, a)
}

func recurrent(in []*node, c0, bias, lengths, mask *node, a RecurrentAttrs) (states, cells *node) {
	a.Lengths, a.Mask = lengths != nil, mask != nil
	for _, n := range []*node{c0, bias, lengths, mask} {
		if n != nil {
			in = append(in, n)
		}
	}
	n := in[0].Graph().Apply(RecurrentOp, a, in...)
	if a.Cell == "lstm" {
		return n.Part(0), n.Part(1)
	}
	return n.Part(0), nil
}

func recurrentSamples(gradient bool) []graph.Sample {
	sample := func(name string, a RecurrentAttrs, b, t, h int) graph.Sample {
		s := graph.Sample{Name: name, Attrs: a}
		r := a.layout(gradient)
		r.g = max(1, a.gates())
		put := func(x typ, v *tensor.Tensor) { s.In, s.Data = append(s.In, x), append(s.Data, v) }
		if !gradient {
			put(f32(b, t, r.g*h), nil)
		}
		if a.Bits == 0 {
			put(f32(h, r.g*h), nil)
		} else {
			w, scale := a.weights(h).Types(r.g * h)
			v, f := tensor.New(w.DType, w.Shape...), tensor.New(dtype.F32, scale.Shape...)
			for i := range v.Len() {
				v.Set(i, float64(i*37%127))
			}
			for i := range f.Len() {
				f.Set(i, 0.002*float64(1+i%3))
			}
			put(w, v)
			put(scale, f)
			s.NoGrad = true
		}
		put(f32(b, h), nil)
		if r.cType >= 0 {
			put(f32(b, h), nil)
		}
		if r.biasType >= 0 {
			put(f32(r.g*h), nil)
		}
		if a.Lengths {
			n := tensor.New(dtype.I32, b)
			for i := range b {
				n.Set(i, float64((i*2+t)%(t+1)))
			}
			put(graph.TypeOf(n), n)
		}
		if a.Mask {
			put(f32(b, h), nil)
		}
		if gradient {
			put(f32(b, t, h), nil)
			if r.g > 1 {
				put(f32(b, t, h), nil)
				put(f32(b, t, r.g*h), nil)
			}
			put(f32(b, t, h), nil)
			if a.CellGrad {
				put(f32(b, t, h), nil)
			}
		}
		return s
	}
	bad := sample("no cell", RecurrentAttrs{Cell: "lstn"}, 1, 1, 2)
	bad.Bad = "no cell"
	wrong := sample("weights", RecurrentAttrs{Cell: "tanh"}, 1, 2, 3)
	wrong.In = append([]typ{}, wrong.In...)
	wrong.In[len(wrong.In)-1-map[bool]int{false: 0, true: 2}[gradient]] = f32(2, 5)
	wrong.Bad = "must be"
	out := []graph.Sample{
		sample("lstm", RecurrentAttrs{Cell: "lstm"}, 2, 4, 5),
		sample("lstm backwards, lengths", RecurrentAttrs{Cell: "lstm", Reverse: true, Lengths: true}, 3, 3, 17),
		sample("gru", RecurrentAttrs{Cell: "gru"}, 2, 4, 5),
		sample("gru, lengths, mask", RecurrentAttrs{Cell: "gru", Lengths: true, Mask: true}, 3, 3, 18),
		sample("tanh", RecurrentAttrs{Cell: "tanh"}, 2, 3, 7),
		sample("tanh backwards, mask", RecurrentAttrs{Cell: "tanh", Reverse: true, Mask: true}, 1, 2, 3),
		sample("one step", RecurrentAttrs{Cell: "lstm", Mask: true}, 1, 1, 4),
		sample("gru1", RecurrentAttrs{Cell: "gru1"}, 2, 3, 4), sample("gru1 backwards, lengths, mask", RecurrentAttrs{Cell: "gru1", Reverse: true, Lengths: true, Mask: true}, 3, 3, 17),
		bad, wrong,
	}
	if !gradient {
		out = append(out, sample("lstm of bytes", RecurrentAttrs{Cell: "lstm", Bits: 8, Lengths: true}, 3, 4, 24), sample("gru of pairs, mask", RecurrentAttrs{Cell: "gru", Bits: 4, Group: 8, Mask: true}, 2, 3, 20))
		out = append(out, sample("gru1 of bytes", RecurrentAttrs{Cell: "gru1", Bits: 8}, 2, 3, 4))
	}
	if gradient {
		out = append(out, sample("cells", RecurrentAttrs{Cell: "lstm", CellGrad: true}, 2, 3, 4))
	}
	return out
}

func init() {
	flops := func(a RecurrentAttrs, in, out []typ) int64 { // the product, and about 10 for each gate
		u, seq := in[a.layout(len(in) > 0 && len(in[0].Shape) == 2).uType].Shape, out[0].Shape
		if a.Bits != 0 {
			h := int64(a.gates()) * int64(seq[2])
			return int64(seq[0]*seq[1]) * (2*h*int64(seq[2]) + 10*h)
		}
		return int64(seq[0]*seq[1]) * (2*int64(u[0])*int64(u[1]) + 10*int64(u[1]))
	}
	RecurrentOp = add(def[RecurrentAttrs]{
		Name: "recurrent", Doc: "a recurrent cell (lstm, gru, gru1, tanh, relu) over the time axis of projected inputs [B T g·H]: states [B T H]; of lstm and gru also cells (lstm), the third product (gru) or its operand (gru1) [B T H] and gates [B T g·H]",
		Kind: graph.Contraction,
		Infer: func(a RecurrentAttrs, in []typ) ([]typ, error) {
			if len(in) == 0 {
				return nil, fmt.Errorf("takes operands, was given none")
			}
			r := a.layout(false)
			if err := r.check(in, in[0].Shape); err != nil {
				return nil, err
			}
			return r.results(), operands(in, r.count)
		},
		Decompose: func(a RecurrentAttrs, in []*node) []*node {
			r := a.layout(false)
			_ = r.check(typesOf(in), in[0].Shape()) // verified when the node was made
			r.with(in)
			return r.unrolled()
		},
		Grad: func(a RecurrentAttrs, n *node, d []*node) []*node {
			r := a.layout(false)
			_ = r.check(typesOf(n.Inputs()), n.Input(0).Shape())
			r.with(n.Inputs())
			if a.Bits != 0 {
				return nil // differentiate the definition: the weights have no gradient, all else has
			}
			kept := len(n.Types()) - 1
			a.CellGrad = a.Cell == "lstm" && d[1] != nil
			if kept > 0 && (d[2] != nil || a.Cell != "lstm" && d[1] != nil) { // a loss on what is kept: differentiate the definition
				return nil
			}
			dhs := d[0]
			if dhs == nil {
				dhs = zeros(n.Part(0))
			}
			in := append([]*node{}, n.Inputs()[1:]...)
			if r.biasType >= 0 {
				in = append(in[:r.biasType-1], in[r.biasType:]...)
			}
			for i := range n.Types() {
				in = append(in, n.Part(i))
			}
			in = append(in, dhs)
			if a.CellGrad {
				in = append(in, d[1])
			}
			g := n.Graph().Apply(RecurrentGradOp, a, in...)
			out := make([]*node, len(n.Inputs())) // lengths and mask have none
			dq, next := g.Part(0), 1
			out[r.xType] = g.Part(0)
			if a.Cell == "gru" {
				dq, next = g.Part(1), 2
				out[r.biasType] = Sum(dq, 0, 1)
			}
			out[r.hType] = g.Part(next)
			if a.Cell == "lstm" {
				out[r.cType] = g.Part(next + 1)
			}
			before := r.before(n.Part(0), r.h0)
			if a.Cell == "gru1" {
				r.resetFirst(n, dq, before, out)
				return out
			}
			if r.mask != nil {
				before = Mul(before, BroadcastTo(Reshape(r.mask, r.b, 1, r.h), r.b, r.t, r.h))
				// The mask's own gradient: Σ over the steps of h·(dq·uᵀ).
				dm := MatMul(Reshape(dq, r.b*r.t, r.g*r.h), Transpose(r.u, 1, 0))
				out[r.maskType] = Sum(Mul(r.before(n.Part(0), r.h0), Reshape(dm, r.b, r.t, r.h)), 1)
			}
			out[r.uType] = r.weightGrad(Reshape(before, r.b*r.t, r.h), Reshape(dq, r.b*r.t, r.g*r.h))
			return out
		},
		FLOPs:   flops,
		Samples: recurrentSamples(false),
	})
	RecurrentGradOp = add(def[RecurrentAttrs]{
		Name: "recurrent_grad", Doc: "gradient of recurrent for its projected inputs [B T g·H], of a gru also for its products, for the first state and of an lstm for the first cell; from weights, first states, lengths, mask, what recurrent gave, and the gradients of states and cells",
		Kind: graph.Contraction,
		Infer: func(a RecurrentAttrs, in []typ) ([]typ, error) {
			r := a.layout(true)
			kept := 1
			if a.gates() > 1 {
				kept = 3
			}
			n := r.count + kept + 1
			if a.CellGrad {
				n++
			}
			if len(in) != n {
				return nil, fmt.Errorf("takes %d operands, was given %d", n, len(in))
			}
			if a.CellGrad && a.Cell != "lstm" {
				return nil, fmt.Errorf("only an lstm has cells")
			}
			if err := r.check(in, in[r.count].Shape); err != nil {
				return nil, err
			}
			for i, want := range append(r.results(), r.types.seq, r.types.seq)[:n-r.count] {
				if !in[r.count+i].Equal(want) {
					return nil, fmt.Errorf("operand %d must be %v, not %v", r.count+i, want, in[r.count+i])
				}
			}
			out := []typ{r.types.wide}
			if a.Cell == "gru" {
				out = append(out, r.types.wide)
			}
			out = append(out, r.types.state)
			if a.Cell == "lstm" {
				out = append(out, r.types.state)
			}
			return out, nil
		},
		Decompose: func(a RecurrentAttrs, in []*node) []*node {
			r := a.layout(true)
			_ = r.check(typesOf(in), in[r.count].Shape())
			r.with(in)
			rest := in[r.count:]
			r.hs = rest[0]
			if r.g > 1 {
				r.cells, r.gate, rest = rest[1], rest[2], rest[2:]
			}
			r.dhs = rest[1]
			if a.CellGrad {
				r.dcs = rest[2]
			}
			return r.back()
		},
		FLOPs:   flops,
		Samples: recurrentSamples(true),
	})
}
