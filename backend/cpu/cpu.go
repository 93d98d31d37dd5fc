// Package cpu compiles graphs for this machine's processor.
//
// A graph goes through the passes (pass.Standard, then fusions that this backend has kernels for), every node gets a kernel from the
// table in rows.go (an op without one is decomposed, or else runs on its float64 reference), values get places in one
// arena by lifetime, and a run calls the kernels in order. After the first run nothing is allocated. Results are the same bits for any
// number of threads.
package cpu

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/trace"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// Backend implements backend.Backend.
type Backend struct{}

// Name is "cpu".
func (Backend) Name() string { return "cpu" }

// NewState implements backend.Backend.
func (Backend) NewState(vars []backend.Var) (backend.State, error) { return backend.NewHost(vars) }

// pools are shared by all executables: one for each number of threads ever asked for.
var pools struct {
	sync.Mutex
	at map[int]*par.Pool
}

func poolOf(threads int) *par.Pool {
	if threads <= 0 {
		threads = par.DefaultThreads()
	}
	if threads == 1 {
		return nil
	}
	pools.Lock()
	defer pools.Unlock()
	if pools.at == nil {
		pools.at = map[int]*par.Pool{}
	}
	if pools.at[threads] == nil {
		pools.at[threads] = par.New(threads)
	}
	return pools.at[threads]
}

// Passes are what this backend applies to a graph, in order.
func Passes() []pass.Pass {
	ps := append([]pass.Pass{}, pass.Standard...)
	return append(ps,
		pass.Pass{Name: "scales", Doc: "a normalisation behind a product, outside training, goes into its weights", Run: pass.Scales},
		pass.Pass{Name: "convpool", Doc: "convolution, bias, rectifier and max pooling become one node, and so do their gradients", Run: pass.ConvPool(takesConvPool)},
		pass.Pass{Name: "qpool", Doc: "a convolution of bytes and the max pooling behind it become one node", Run: pass.QPool},
		pass.Pass{Name: "norms", Doc: "batch normalisation, what is added behind it and the rectifier become one node, and so do their gradients", Run: pass.Norms},
		pass.Pass{Name: "fuse", Doc: "patterns that have a kernel of their own", Run: pass.Fuse},
		pass.Pass{Name: "expand", Doc: "ops without a kernel become their decompositions", Run: expand},
		pass.Pass{Name: "digits", Doc: "a gradient that would be rounded to bf16 and brought back to f32 keeps its digits", Run: pass.Digits},
		pass.Pass{Name: "simplify2", Doc: "simplify again, what expand has made", Run: pass.Simplify},
		pass.Pass{Name: "layout2", Doc: "layout again, with the transposes that expand has made", Run: pass.Layout},
		pass.Pass{Name: "fold2", Doc: "fold again", Run: pass.Fold},
		pass.Pass{Name: "cse2", Doc: "cse again", Run: pass.CSE},
		pass.Pass{Name: "updates", Doc: "the steps of all parameters become one node", Run: pass.Updates},
		pass.Pass{Name: "recompute", Doc: "the backward pass computes cheap elementwise results again instead of keeping them", Run: pass.Recompute},
		pass.Pass{Name: "regions", Doc: "elementwise nodes of one shape become one node", Run: pass.Regions},
		pass.Pass{Name: "unmark", Doc: "what has kept recomputed values apart is taken out", Run: pass.Unmark},
	)
}

// expand decomposes what no row takes, and brings products and reductions into the form that the rows take, until nothing changes.
func expand(g *graph.Graph) (*graph.Graph, error) {
	for {
		again := false
		out, err := graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) *graph.Node {
			switch {
			case widens(n):
				again = true
				return widen16(to, n, in)
			case sumsInF32(n):
				again = true
				return inF32(n, in)
			case needsTranspose(n):
				again = true
				return canonical(n, in)
			case needsSplit(n):
				again = true
				return splitReduction(n, in)
			case n.Op().Decompose == nil || hasKernel(n):
				return nil
			}
			again = true
			return graph.Tuple(to, n.Op().Decompose(n.Attrs(), in))
		})
		if err != nil || !again {
			return out, err
		}
		g = out
	}
}

// Compile implements backend.Backend.
func (b Backend) Compile(g *graph.Graph, s backend.State, o backend.Options) (backend.Executable, error) {
	opt, err := pass.Apply(g, Passes()...)
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	h, err := backend.Bind(opt, s)
	if err != nil {
		return nil, err
	}
	e := &exec{g: opt, sig: g, pool: poolOf(o.Threads), nan: o.StopAtNaN || debug.On("nan"), check: debug.Get("check") == "ref", ready: o.Ready, take: o.Take}
	e.moved = [2]int64{pass.Moved(g), pass.Moved(opt)}
	c := &compiler{e: e, g: opt, host: h, bufs: make([][]*buf, len(opt.Nodes())), live: opt.Live()}
	if err := c.compile(); err != nil {
		return nil, err
	}
	return e, nil
}

// buf is the place of one value.
type buf struct {
	t    graph.Type
	raw  []byte // set when the plan is made; for inputs at each run
	n    int    // elements
	node *graph.Node
	// bound: an output of a body, which lies where the program around it says.
	bound bool
}

// view is the value's elements.
func view[T any](b *buf) []T { return cast[T](b.raw, b.n) }

func (b *buf) f32() []float32 { return view[float32](b) }

// step is one kernel call.
type step struct {
	backend.NodeTime // what is known of it, and what it has taken
	run              func()
	in, out          []*buf
	once             []*backend.Kept // not nil: the kept values that the step serves
}

type exec struct {
	g      *graph.Graph // after the passes
	sig    *graph.Graph // as it was given: inputs and outputs are checked against it
	pool   *par.Pool
	ins    []*buf
	outs   []*buf
	steps  []step
	late   []copying // updates that no kernel could do in place
	follow []copying // views of inputs: pointed at their memory at each run
	bytes  int64
	moved  [2]int64        // see Moved
	shared []uint32        // see share
	kept   []*backend.Kept // values that are computed once
	writes []*uint64       // versions of the variables that a run changes
	ready  func(i int)
	take   func(i int, p []byte) bool
	early  [][]int // by step: the outputs that it finishes; nil if nobody wants to know
	ends   []int   // outputs that are whole only at the end
	nan    bool
	check  bool
}

type copying struct{ from, to *buf }

// Run implements backend.Executable.
func (e *exec) Run(in, out []*tensor.Tensor) error {
	// Tiny numbers count as zero: see isa.Flush. The workers of the pool do as this thread does.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer isa.SetMode(isa.Flush())
	check := backend.CheckArgs
	if e.take != nil {
		check = backend.CheckTaken
	}
	if err := check(e.sig, in, out); err != nil {
		return err
	}
	for i, b := range e.ins {
		b.raw = in[i].Bytes()
	}
	for _, f := range e.follow {
		f.to.raw = f.from.raw
	}
	rec := trace.Current()
	last := time.Now()
	for i := range e.steps {
		s := &e.steps[i]
		if s.skipped() {
			e.finish(i, out)
			continue
		}
		if rec != nil {
			rec.Label(s.label(), s.Node.Phase().String())
		}
		s.run()
		now := time.Now()
		if rec != nil {
			rec.Add(trace.Span{Name: s.label(), Category: s.Node.Phase().String(), Track: trace.Nodes, Start: last, End: now,
				Args: map[string]any{"op": s.Node.Op().Name, "layer": s.Node.Scope(), "kernel": s.Kernel, "result": fmt.Sprint(s.Node.Types())}})
		}
		s.Calls++
		s.Time += now.Sub(last)
		last = now
		if e.nan || e.check {
			if err := e.inspect(s); err != nil {
				return err
			}
			last = time.Now()
		}
		if e.finish(i, out) {
			last = time.Now()
		}
	}
	for _, k := range e.kept {
		k.Made()
	}
	for _, i := range e.ends {
		e.give(i, out[i])
	}
	for _, c := range e.late {
		copy(c.to.raw, c.from.raw)
	}
	for _, v := range e.writes {
		*v++
	}
	return nil
}

// finish copies the outputs that step i finishes and says so, if somebody wants to know.
func (e *exec) finish(i int, out []*tensor.Tensor) bool {
	if e.early == nil || len(e.early[i]) == 0 {
		return false
	}
	for _, o := range e.early[i] {
		e.give(o, out[o])
	}
	return true
}

// give hands output i over.
func (e *exec) give(i int, out *tensor.Tensor) {
	if e.take == nil || !e.take(i, e.outs[i].raw) {
		copy(out.Bytes(), e.outs[i].raw)
	}
	if e.ready != nil {
		e.ready(i)
	}
}

// label names a step on a timeline: its layer and op.
func (s *step) label() string {
	if s.Node.Scope() == "" {
		return s.Node.Op().Name
	}
	return s.Node.Scope() + " " + s.Node.Op().Name
}

// Profile implements backend.Executable.
func (e *exec) Profile() []backend.NodeTime {
	out := make([]backend.NodeTime, len(e.steps))
	for i, s := range e.steps {
		out[i] = s.NodeTime
	}
	return out
}

// Reset implements backend.Executable.
func (e *exec) Reset() {
	for i := range e.steps {
		e.steps[i].Calls, e.steps[i].Time = 0, 0
	}
}

// Moved implements backend.Mover.
func (e *exec) Moved() (asked, left int64) { return e.moved[0], e.moved[1] }

// Memory implements backend.Executable.
func (e *exec) Memory() int64 { return e.bytes }

// inspect serves JOULE_DEBUG nan and check=ref on a step that has just run.
func (e *exec) inspect(s *step) error {
	where := fmt.Sprintf("%s: %s of %s pass, node %v, kernel %s", s.Node.Place(), s.Node.Op().Name, s.Node.Phase(), s.Node, s.Kernel)
	if e.nan {
		for _, b := range s.out {
			if i := notFinite(b); i >= 0 {
				return fmt.Errorf("%s: element %d of its result is %v", where, i, tensor.Wrap(b.t.DType, b.t.Shape, b.raw).At(i))
			}
		}
	}
	if e.check {
		for _, b := range s.in {
			for _, o := range s.out {
				if len(b.raw) > 0 && len(o.raw) > 0 && &b.raw[0] == &o.raw[0] {
					return nil // it ran in place: its operands are gone
				}
			}
		}
		if err := diverges(s); err != nil {
			return fmt.Errorf("check: %s: %w", where, err)
		}
		fmt.Fprintf(os.Stderr, "check: %s agrees\n", where)
	}
	return nil
}

// notFinite is the position of the first NaN or infinity of a float value, -1 if there is none.
func notFinite(b *buf) int {
	if !b.t.DType.IsFloat() {
		return -1
	}
	t := tensor.Wrap(b.t.DType, b.t.Shape, b.raw)
	for i := range t.Len() {
		if v := t.At(i); v-v != 0 {
			return i
		}
	}
	return -1
}

// diverges runs a step's node on the reference and compares.
func diverges(s *step) error {
	g, err := graph.Build(func(g *graph.Graph) {
		in := make([]*graph.Node, len(s.in))
		for i, b := range s.in {
			in[i] = g.Input(fmt.Sprint("x", i), b.t)
		}
		n := g.Apply(s.Node.Op(), s.Node.Attrs(), in...)
		for i := range n.Types() {
			g.Output(fmt.Sprint("y", i), n.Part(i))
		}
	})
	if err != nil {
		return err
	}
	st, _ := backend.NewHost(nil)
	x, err := ref.Backend{}.Compile(g, st, backend.Options{})
	if err != nil {
		return err
	}
	in := make([]*tensor.Tensor, len(s.in))
	for i, b := range s.in {
		in[i] = tensor.Wrap(b.t.DType, b.t.Shape, b.raw)
	}
	want := backend.NewOutputs(g)
	if err := x.Run(in, want); err != nil {
		return err
	}
	for i, w := range want {
		got, scale := tensor.Wrap(s.out[i].t.DType, s.out[i].t.Shape, s.out[i].raw), 0.0
		for j := range w.Len() {
			scale = max(scale, w.At(j), -w.At(j))
		}
		for j := range w.Len() {
			a, b := got.At(j), w.At(j)
			if d := max(a-b, b-a); d > 1e-3*scale || d != d && b == b {
				return fmt.Errorf("element %d of result %d is %v, the reference gives %v", j, i, a, b)
			}
		}
	}
	return nil
}
