package op

import (
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// LoopOp runs a graph again and again.
var LoopOp *graph.Op

// LoopAttrs are the attributes of LoopOp. The node's operands, and the body's inputs, are in this order:
//
//	state      Carried values, which an iteration takes and makes anew
//	sequences  Scanned values [Steps …]; the body takes a slice […] of each, the one of its step
//	constants  the others, which the body takes as they are
//
// The body's outputs are the new state, then slices of stacked results. The node's results are the last state, then the stacked results [Steps …], and with Save, the state before
// each step, stacked: what a gradient needs.
type LoopAttrs struct {
	Body             *graph.Graph `json:"-"`
	Cond             *graph.Graph `json:"-"` // of state and constants, a bool: the loop goes on while it holds; nil: it makes all steps
	Steps            int          // with Cond: at most
	Carried, Scanned int
	Reverse          bool // from the last step to the first
	Save             bool
}

// Graphs lets a printed graph show the bodies.
func (a LoopAttrs) Graphs() []*graph.Graph {
	if a.Cond == nil {
		return []*graph.Graph{a.Body}
	}
	return []*graph.Graph{a.Body, a.Cond}
}

// SetGraphs lets a parsed graph give the bodies.
func (a *LoopAttrs) SetGraphs(gs []*graph.Graph) {
	if len(gs) > 0 {
		a.Body = gs[0]
	}
	if len(gs) > 1 {
		a.Cond = gs[1]
	}
}

// Scan makes a step for each element of the first axis of the sequences xs, all of one length: body is given the state, the elements [...] of that step and the constants, all
// as nodes of a graph of its own, and gives the new state, of the same types, and what is to be stacked. Scan gives the last state and the stacked [steps ...]. Reverse begins at the last
// element. The body may use no nodes from outside but those that it is given.
func Scan(init, xs, constants []*node, reverse bool, body func(state, x, constants []*node) (next, ys []*node)) (last, stacked []*node) {
	if len(xs) == 0 || len(xs[0].Shape()) == 0 {
		one := append(append(slices.Clone(init), xs...), constants...)[0]
		one.Graph().Fail("loop", xs, "a scan needs a sequence, of which each step takes an element; op.Repeat makes a number of steps without")
	}
	return loop(LoopAttrs{Steps: xs[0].Shape()[0], Reverse: reverse}, init, xs, constants, body, nil)
}

// Repeat makes n steps: body is given the state and the constants, in a graph of its own, and gives the new state.
func Repeat(n int, init, constants []*node, body func(state, constants []*node) []*node) []*node {
	last, _ := loop(LoopAttrs{Steps: n}, init, nil, constants, func(s, _, c []*node) ([]*node, []*node) { return body(s, c), nil }, nil)
	return last
}

// While makes steps as long as cond, a bool scalar of the state and the constants, holds before a step, but at most limit, which is also what the loop is priced at. Bodies are as
// those of Repeat. Its gradient costs limit steps however many were made, and memory for as many states.
func While(limit int, init, constants []*node, cond func(state, constants []*node) *node, body func(state, constants []*node) []*node) []*node {
	last, _ := loop(LoopAttrs{Steps: limit}, init, nil, constants, func(s, _, c []*node) ([]*node, []*node) { return body(s, c), nil }, cond)
	return last
}

func loop(a LoopAttrs, init, xs, constants []*node, body func(state, x, constants []*node) (next, ys []*node), cond func(state, constants []*node) *node) (last, stacked []*node) {
	all := append(append(slices.Clone(init), xs...), constants...)
	if len(init) == 0 {
		panic(&graph.Error{Op: "loop", Rule: "has no state: without one no step needs another"})
	}
	g := all[0].Graph()
	a.Carried, a.Scanned = len(init), len(xs)
	build := func(what string, f func(b *graph.Graph)) *graph.Graph {
		b, err := graph.Build(f)
		if err != nil {
			g.Fail("loop", all, "%s: %v", what, err)
		}
		return b
	}
	a.Body = build("body", func(b *graph.Graph) {
		s := inputs(b, "state", init, false)
		x := inputs(b, "x", xs, true)
		c := inputs(b, "constant", constants, false)
		next, ys := body(s, x, c)
		outputs(b, "state", next)
		outputs(b, "y", ys)
	})
	if cond != nil {
		a.Cond = build("condition", func(b *graph.Graph) {
			s := inputs(b, "state", init, false)
			b.Output("go on", cond(s, inputs(b, "constant", constants, false)))
		})
	}
	n := g.Apply(LoopOp, a, all...)
	for i := range n.Types() {
		if i < a.Carried {
			last = append(last, n.Part(i))
		} else {
			stacked = append(stacked, n.Part(i))
		}
	}
	return last, stacked
}

// inputs are the inputs of a body that stand for nodes outside, or for their slices.
func inputs(b *graph.Graph, name string, outside []*node, slice bool) []*node {
	in := make([]*node, len(outside))
	for i, x := range outside {
		t := x.Type()
		if slice {
			if len(t.Shape) == 0 {
				b.Fail("loop", nil, "sequence %d is a scalar, which has no first axis", i)
			}
			t.Shape = t.Shape[1:]
		}
		in[i] = b.Input(fmt.Sprint(name, i), t)
	}
	return in
}

func outputs(b *graph.Graph, name string, ns []*node) {
	for i, n := range ns {
		b.Output(fmt.Sprint(name, i), n)
	}
}

// stack is the type of n values of type t.
func stack(n int, t typ) typ {
	return typ{DType: t.DType, Shape: append([]int{n}, t.Shape...)}
}

// infer checks that the bodies fit the operands.
func (a LoopAttrs) infer(in []typ) ([]typ, error) {
	switch {
	case a.Body == nil:
		return nil, fmt.Errorf("has no body")
	case a.Steps < 0 || a.Carried < 1 || a.Scanned < 0:
		return nil, fmt.Errorf("needs a number of steps that is not negative, and a state")
	case len(in) != len(a.Body.Inputs()) || len(in) < a.Carried+a.Scanned:
		return nil, fmt.Errorf("the body takes %d values, of them %d of the state and %d slices; there are %d operands", len(a.Body.Inputs()), a.Carried, a.Scanned, len(in))
	case len(a.Body.Outputs()) < a.Carried:
		return nil, fmt.Errorf("the body gives %d values where the state alone has %d", len(a.Body.Outputs()), a.Carried)
	case a.Cond != nil && (a.Scanned > 0 || len(a.Body.Outputs()) > a.Carried || a.Save || a.Reverse):
		return nil, fmt.Errorf("a loop with a condition can neither take slices nor stack results: it is not known how many there are")
	}
	for _, b := range a.Graphs() {
		if len(b.Variables()) > 0 || len(b.Updates()) > 0 {
			return nil, fmt.Errorf("the body has variables; read them outside and pass them as constants or state")
		}
	}
	for i, t := range in {
		want := a.Body.Inputs()[i].Type()
		if i >= a.Carried && i < a.Carried+a.Scanned {
			want = stack(a.Steps, want)
		}
		if !want.Equal(t) {
			return nil, fmt.Errorf("operand %d is %v where the body takes %v", i, t, want)
		}
	}
	var out []typ
	for i, o := range a.Body.Outputs() {
		t := o.Node.Type()
		switch {
		case i >= a.Carried:
			t = stack(a.Steps, t)
		case !t.Equal(in[i]):
			return nil, fmt.Errorf("state %d is %v before a step and %v after it; it must keep its type", i, in[i], t)
		}
		out = append(out, t)
	}
	if a.Save {
		for _, t := range in[:a.Carried] {
			out = append(out, stack(a.Steps, t))
		}
	}
	if c := a.Cond; c != nil {
		if len(c.Outputs()) != 1 || !c.Outputs()[0].Node.Type().Equal(graph.T(dtype.Bool)) {
			return nil, fmt.Errorf("the condition must give one bool scalar")
		}
		if len(c.Inputs()) != len(in) {
			return nil, fmt.Errorf("the condition takes %d values; state and constants are %d", len(c.Inputs()), len(in))
		}
		for i, x := range c.Inputs() {
			if !x.Type().Equal(in[i]) {
				return nil, fmt.Errorf("operand %d is %v where the condition takes %v", i, in[i], x.Type())
			}
		}
	}
	return out, nil
}

// ref runs the bodies on their references.
func (a LoopAttrs) ref(in, out []value) {
	body, cond := expanded(a.Body), expanded(a.Cond)
	args := slices.Clone(in)
	saved := len(a.Body.Outputs())
	for i := range a.Steps {
		t := i
		if a.Reverse {
			t = a.Steps - 1 - i
		}
		if cond != nil && graph.Eval(cond, args)[0].Data[0] == 0 {
			break
		}
		slice := func(v value, t int) []float64 { n := len(v.Data) / a.Steps; return v.Data[t*n : (t+1)*n] }
		for j := range a.Scanned {
			k := a.Carried + j
			args[k] = value{Type: a.Body.Inputs()[k].Type(), Data: slice(in[k], t)}
		}
		for j := range out[saved:] {
			copy(slice(out[saved+j], t), args[j].Data)
		}
		for j, v := range graph.Eval(body, args) {
			if j < a.Carried {
				args[j] = v
			} else {
				copy(slice(out[j], t), v.Data)
			}
		}
	}
	for j := range a.Carried {
		copy(out[j].Data, args[j].Data)
	}
}

// expanded is a body of ops that have references.
func expanded(b *graph.Graph) *graph.Graph {
	if b == nil {
		return nil
	}
	e, err := graph.Expand(b)
	if err != nil {
		panic(err) // a decomposition in the table does not fit
	}
	return e
}

// gradient runs the steps backwards. Each makes its body's values again from the state that was saved before it and sends gradients through them; those of the constants add up
// in the state of the new loop. Memory is a state for each step, whatever a body computes between (Griewank & Walther, Evaluating Derivatives, 2nd ed. 2008, ch. 12: checkpoints at
// every step).
func (a LoopAttrs) gradient(pull graph.Pull, n *node, d []*node) []*node {
	if a.Cond != nil {
		return a.whileGradient(pull, n, d)
	}
	g, in := n.Graph(), n.Inputs()
	keep := a
	keep.Save = true
	saving := g.Apply(LoopOp, keep, in...) // pass loops makes one of this and n
	ys := len(a.Body.Outputs())

	var state, xs, consts []*node // operands of the new loop
	var stateOf, constOf []int    // operands of n that the state's gradients are for
	for i := range a.Carried {
		if !in[i].DType().IsFloat() {
			continue
		}
		dx := d[i]
		if dx == nil {
			dx = zeros(in[i])
		}
		state, stateOf = append(state, dx), append(stateOf, i)
	}
	for i := a.Carried + a.Scanned; i < len(in); i++ {
		if in[i].DType().IsFloat() {
			state, constOf = append(state, zeros(in[i])), append(constOf, i)
		}
	}
	for i := range a.Carried {
		xs = append(xs, saving.Part(ys+i))
	}
	xs = append(xs, in[a.Carried:a.Carried+a.Scanned]...)
	var seeded []int // results of n, beyond the state, that a gradient has come for
	for i := a.Carried; i < len(d); i++ {
		if d[i] != nil {
			xs, seeded = append(xs, d[i]), append(seeded, i)
		}
	}
	consts = append(consts, in[a.Carried+a.Scanned:]...)
	if len(state) == 0 {
		return make([]*node, len(in))
	}

	back, stacked := loop(LoopAttrs{Steps: a.Steps, Reverse: !a.Reverse}, state, xs, consts, func(ds, x, c []*node) (next, dx []*node) {
		b := ds[0].Graph()
		bind := map[int]*node{}
		args := append(slices.Clone(x[:a.Carried+a.Scanned]), c...)
		for i, v := range a.Body.Inputs() {
			bind[v.ID()] = args[i]
		}
		m := graph.Inline(b, a.Body, bind, nil)
		results := make([]*node, ys)
		for i, o := range a.Body.Outputs() {
			results[i] = m[o.Node.ID()]
		}
		var from, seeds []*node
		for k, i := range stateOf {
			from, seeds = append(from, results[i]), append(seeds, ds[k])
		}
		for k, i := range seeded {
			if i < ys {
				from, seeds = append(from, results[i]), append(seeds, x[a.Carried+a.Scanned+k])
			}
		}
		var wrt []*node
		for _, i := range slices.Concat(stateOf, constOf) {
			wrt = append(wrt, args[i])
		}
		var slicesOf []*node
		for _, s := range args[a.Carried : a.Carried+a.Scanned] {
			if s.DType().IsFloat() {
				slicesOf = append(slicesOf, s)
			}
		}
		var all []*node
		if len(from) > 0 {
			all = pull(from, seeds, append(slices.Clone(wrt), slicesOf...)...)
		} else {
			for _, w := range append(slices.Clone(wrt), slicesOf...) {
				all = append(all, zeros(w))
			}
		}
		next = all[:len(wrt)]
		for k, i := range seeded { // what was saved is the state before the step
			for j, s := range stateOf {
				if i-ys == s {
					next[j] = Add(next[j], x[a.Carried+a.Scanned+k])
				}
			}
		}
		for k := len(stateOf); k < len(wrt); k++ {
			next[k] = Add(ds[k], next[k])
		}
		return next, all[len(wrt):]
	}, nil)

	out := make([]*node, len(in))
	for k, i := range slices.Concat(stateOf, constOf) {
		out[i] = back[k]
	}
	for i, k := a.Carried, 0; i < a.Carried+a.Scanned; i++ {
		if in[i].DType().IsFloat() {
			out[i] = stacked[k]
			k++
		}
	}
	return out
}

// whileGradient is that of a loop which makes all steps, but keeps its state from the step on before which the condition does not hold.
func (a LoopAttrs) whileGradient(pull graph.Pull, n *node, d []*node) []*node {
	g, in := n.Graph(), n.Inputs()
	on := g.Const(tensor.Scalar(true))
	run := func(b, body *graph.Graph, args []*node) []*node {
		bind := map[int]*node{}
		for i, v := range body.Inputs() {
			bind[v.ID()] = args[i]
		}
		m := graph.Inline(b, body, bind, nil)
		var out []*node
		for _, o := range body.Outputs() {
			out = append(out, m[o.Node.ID()])
		}
		return out
	}
	last, _ := loop(LoopAttrs{Steps: a.Steps}, append([]*node{on}, in[:a.Carried]...), nil, in[a.Carried:], func(s, _, c []*node) (next, _ []*node) {
		b := s[0].Graph()
		args := append(slices.Clone(s[1:]), c...)
		going := And(s[0], run(b, a.Cond, args)[0])
		next = []*node{going}
		for i, y := range run(b, a.Body, args) {
			next = append(next, Select(BroadcastTo(going, y.Shape()...), y, s[1+i]))
		}
		return next, nil
	}, nil)
	var ys, seeds, wrt []*node
	for i, dy := range d {
		if dy != nil {
			ys, seeds = append(ys, last[1+i]), append(seeds, dy)
		}
	}
	for _, x := range in {
		if x.DType().IsFloat() {
			wrt = append(wrt, x)
		}
	}
	out := make([]*node, len(in))
	for i, dx := range pull(ys, seeds, wrt...) {
		out[slices.Index(in, wrt[i])] = dx
	}
	return out
}

func init() {
	LoopOp = add(def[LoopAttrs]{
		Name: "loop", Doc: "a graph run for a number of steps, or while a condition holds: state passes from one to the next, slices of sequences go in, results are stacked",
		Why: "repeats other ops without a copy of them for each step", Kind: graph.Other, HLO: "while", ONNX: "Scan",
		Infer:      func(a LoopAttrs, in []typ) ([]typ, error) { return a.infer(in) },
		Ref:        func(a LoopAttrs, in, out []value) { a.ref(in, out) },
		GradOfBody: func(a LoopAttrs, pull graph.Pull, n *node, d []*node) []*node { return a.gradient(pull, n, d) },
		Lower:      func(a LoopAttrs, b text, in []hlo, out []typ) []hlo { return a.lower(b, in, out) },
		FLOPs:      func(a LoopAttrs, _, _ []typ) int64 { f, _, _ := a.cost(); return f },
		Bytes:      func(a LoopAttrs, _, _ []typ) (read, written int64) { _, r, w := a.cost(); return r, w },
	})
	LoopOp.Samples = loopSamples() // made with builders, of this op too; the ops of files before this one are there by now
}

// lower is a loop in StableHLO over the number of the step, the operands and the stacked results.
func (a LoopAttrs) lower(b text, in []hlo, out []typ) []hlo {
	vals := append([]hlo{b.Scalar(stablehlo.I32, 0)}, in...)
	for _, t := range out[a.Carried:] {
		vals = append(vals, b.Fill(stablehlo.Of(t.DType), 0, t.Shape))
	}
	constants := 1 + a.Carried + a.Scanned
	stacks := 1 + len(in)
	if a.Steps == 0 {
		return append(vals[1:1+a.Carried:1+a.Carried], vals[stacks:]...)
	}
	end := b.While(vals, func(b text, v []hlo) hlo {
		more := b.Compare("LT", v[0], b.Scalar(stablehlo.I32, float64(a.Steps)))
		if a.Cond != nil {
			more = b.Binary("and", more, graph.LowerBody(b, a.Cond, v[1:stacks])[0])
		}
		return more
	}, func(b text, v []hlo) []hlo {
		t := v[0]
		if a.Reverse {
			t = b.Binary("subtract", b.Scalar(stablehlo.I32, float64(a.Steps-1)), t)
		}
		args := slices.Clone(v[1:stacks])
		for i := range a.Scanned {
			args[a.Carried+i] = b.At(args[a.Carried+i], t)
		}
		made := graph.LowerBody(b, a.Body, args)
		next := append([]hlo{b.Binary("add", v[0], b.Scalar(stablehlo.I32, 1))}, made[:a.Carried]...)
		next = append(next, v[1+a.Carried:constants]...)
		next = append(next, v[constants:stacks]...)
		stacked := made[a.Carried:]
		if a.Save {
			stacked = append(slices.Clone(stacked), args[:a.Carried]...)
		}
		for i, y := range stacked {
			next = append(next, b.Put(v[stacks+i], y, t))
		}
		return next
	})
	return append(end[1:1+a.Carried:1+a.Carried], end[stacks:]...)
}

// cost is that of all steps; of a loop with a condition, of as many as there can be.
func (a LoopAttrs) cost() (flops, read, written int64) {
	for _, b := range a.Graphs() {
		f, r, w := b.Cost()
		flops, read, written = flops+f, read+r, written+w
	}
	n := int64(a.Steps)
	if a.Save {
		for _, x := range a.Body.Inputs()[:a.Carried] {
			read, written = read+int64(x.Type().Bytes()), written+int64(x.Type().Bytes())
		}
	}
	read, written = n*read, n*written
	for i, x := range a.Body.Inputs() { // state and slices are handed over
		switch b := int64(x.Type().Bytes()); {
		case i < a.Carried:
			read, written = read+b, written+b
		case i < a.Carried+a.Scanned:
			read += n * b
		}
	}
	for _, y := range a.Body.Outputs()[a.Carried:] {
		written += n * int64(y.Node.Type().Bytes())
	}
	return n * flops, read, written
}

// loopSamples are a recurrence, a sum and a search, in float64 so that gradients can be compared, and in f32.
func loopSamples() []graph.Sample {
	sample := func(name string, noGrad bool, f func(g *graph.Graph) *node) graph.Sample {
		var s graph.Sample
		if _, err := graph.Build(func(g *graph.Graph) {
			n := f(g)
			s = graph.Sample{Name: name, Attrs: n.Attrs(), NoGrad: noGrad}
			for _, x := range n.Inputs() {
				s.In = append(s.In, x.Type())
			}
		}); err != nil {
			panic(err)
		}
		return s
	}
	whole := func(parts []*node, _ ...[]*node) *node { return parts[0].Input(0) } // the node that they are parts of
	recurrence := func(dt dtype.Type, reverse bool) func(g *graph.Graph) *node {
		return func(g *graph.Graph) *node {
			h, x := g.Input("h", graph.T(dt, 2, 3)), g.Input("x", graph.T(dt, 4, 2, 5))
			w, u := g.Input("w", graph.T(dt, 5, 3)), g.Input("u", graph.T(dt, 3, 3))
			return whole(Scan([]*node{h}, []*node{x}, []*node{w, u}, reverse, func(s, x, c []*node) (next, ys []*node) {
				h := Tanh(Add(MatMul(x[0], c[0]), MatMul(s[0], c[1])))
				return []*node{h}, []*node{Mul(h, h), SumAll(x[0])}
			}))
		}
	}
	halving := func(dt dtype.Type) func(g *graph.Graph) *node {
		return func(g *graph.Graph) *node {
			x, i, k := g.Input("x", graph.T(dt, 3)), g.Input("i", graph.T(dtype.I32)), g.Input("k", graph.T(dt, 3))
			return whole(While(20, []*node{x, i}, []*node{k}, func(s, _ []*node) *node { return Lt(s[1], Like(s[1], 4)) },
				func(s, c []*node) []*node { return []*node{Mul(s[0], Exp(c[0])), Add(s[1], Like(s[1], 3))} }))
		}
	}
	save := func(s graph.Sample) graph.Sample {
		a := s.Attrs.(LoopAttrs)
		a.Save = true
		s.Attrs, s.Name = a, s.Name+" saved"
		return s
	}
	scan := sample("scan", false, recurrence(dtype.F64, false))
	wrong := scan
	wrong.In = slices.Clone(scan.In)
	wrong.In[1] = graph.T(dtype.F64, 5, 2, 5)
	wrong.Name, wrong.Bad = "steps", "operand 1 is f64[5 2 5] where the body takes f64[4 2 5]"
	stateless := scan
	stateless.Attrs = LoopAttrs{Body: scan.Attrs.(LoopAttrs).Body, Steps: 4}
	stateless.Name, stateless.Bad = "no state", "needs a number of steps"
	return []graph.Sample{
		scan, sample("scan reversed", false, recurrence(dtype.F64, true)), sample("scan f32", true, recurrence(dtype.F32, false)), save(scan),
		save(sample("scan f32 reversed", true, recurrence(dtype.F32, true))),
		sample("swap", false, func(g *graph.Graph) *node { // state that is only passed on, and two of one kind
			a, b, x := g.Input("a", graph.T(dtype.F64, 3)), g.Input("b", graph.T(dtype.F64, 3)), g.Input("x", graph.T(dtype.F64, 5, 3))
			return whole(Scan([]*node{a, b}, []*node{x}, nil, false, func(s, x, _ []*node) (next, ys []*node) {
				return []*node{s[1], s[0]}, []*node{s[0], x[0], s[0], Neg(x[0])}
			}))
		}),
		sample("no steps", true, func(g *graph.Graph) *node {
			return whole(Repeat(0, []*node{g.Input("x", f32(3)), g.Input("y", f32(2))}, nil, func(s, _ []*node) []*node { return []*node{Exp(s[0]), s[1]} }))
		}),
		sample("repeat", false, func(g *graph.Graph) *node {
			return whole(Repeat(3, []*node{g.Input("x", graph.T(dtype.F64, 3)), g.Input("y", graph.T(dtype.F64, 3))}, nil, func(s, _ []*node) []*node {
				return []*node{Sin(s[0]), Add(s[1], s[0])}
			}))
		}),
		sample("while", false, halving(dtype.F64)), sample("while f32", true, halving(dtype.F32)),
		wrong, stateless,
	}
}
