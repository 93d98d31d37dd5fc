package pass

import (
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

// Layout decides in which order axes lie in memory. Ops have one order each (images NHWC, attention [B T H D], products as matrices, either way around), so
// programs that were written for another, such as NCHW, hold a transpose before and behind every such op. Layout moves transposes behind what does not mind the order, where those
// that undo each other meet and vanish:
//
//	f(Tx, Ty), f(Tx, broadcast)       → T f(x, y), T f(x, broadcast)     f elementwise; with concat, pad, slice and reverse the same
//	Σ Tx                              → T Σ x                            over other axes, as for all reductions
//	reshape(Tx)                       → T reshape(x)                     where it splits and joins axes that stay together
//	Tx·y, x·Ty                        → x·y                              a product over other axes, if it lies in memory as matrices
//	T(x·y)                            → y·x                              where T swaps the two
//	reshape(Tx)·w                     → reshape(x)·w'                    w' is w in the other order, for weights that a run leaves as they are: then w' is computed once
//	TTx                               → Tx, or x
//
// Weights in another order than their op's, as files of other tools have them, are not touched: what follows from variables that a run leaves alone is computed once. The result is kept if
// it moves fewer bytes than g does (Moved).
func Layout(g *graph.Graph) (*graph.Graph, error) {
	if !slices.ContainsFunc(g.Nodes(), func(n *graph.Node) bool { return n.Op() == op.TransposeOp }) {
		return g, nil
	}
	best, moved := g, Moved(g)
	for out := g; ; { // a round takes a transpose down a whole chain; it ends, for transposes only go down
		next, changed, err := sink(out)
		if err != nil {
			return nil, err
		}
		if !changed {
			return best, nil
		}
		out = next
		if m := Moved(out); m < moved {
			best, moved = out, m
		}
	}
}

// Moved is how many bytes the transposes of a graph read and write in a run. Those that follow from variables that the run leaves alone do not count: they are computed once.
func Moved(g *graph.Graph) (n int64) {
	live, fixed := g.Live(), Fixed(g)
	for i, x := range g.Nodes() {
		if live[i] && !fixed[i] && x.Op() == op.TransposeOp {
			n += 2 * int64(x.Type().Bytes())
		}
	}
	return n
}

// sink moves transposes by one op.
func sink(g *graph.Graph) (out *graph.Graph, changed bool, err error) {
	fixed := Fixed(g)
	soles := newFuser(g)
	out, err = graph.Rewrite(g, func(to *graph.Graph, n *graph.Node, in []*graph.Node) (y *graph.Node) {
		defer func() { changed = changed || y != nil }()
		if len(in) == 0 || len(n.Types()) != 1 || fixed[n.ID()] {
			return nil
		}
		s := sinker{n: n, in: in, fixed: func(i int) bool { return fixed[n.Input(i).ID()] }}
		switch o := n.Op(); {
		case o == op.TransposeOp:
			if y := compose(n, in); y != nil {
				return y
			}
			if p := n.Input(0); soles.sole(p) == n {
				return swapped(n, in[0])
			}
			return nil
		case o == op.DotOp:
			return s.dot()
		case o == op.ReshapeOp:
			return s.reshape()
		case o == op.SumOp, o == op.MaxReduceOp, o == op.MinReduceOp, o == op.ProdOp:
			return s.reduce()
		case o == op.ConcatOp, o.Kind == graph.Elementwise:
			return s.together()
		case o == op.PadOp, o == op.SliceOp, o == op.ReverseOp:
			return s.along()
		}
		return nil
	})
	return out, changed, err
}

// compose makes one transpose, or none, of two; nil if the operand is none.
func compose(n *graph.Node, in []*graph.Node) *graph.Node {
	b := n.Attrs().(op.PermAttrs).Perm
	if slices.IsSorted(slices.DeleteFunc(places(b, in[0].Shape()), func(k int) bool { return k < 0 })) { // only axes of one element move
		return op.Reshape(in[0], n.Shape()...)
	}
	if in[0].Op() != op.TransposeOp {
		return nil
	}
	a := in[0].Attrs().(op.PermAttrs).Perm
	p := make([]int, len(a))
	for i := range b {
		p[i] = a[b[i]]
	}
	return op.Transpose(in[0].Input(0), p...)
}

// swapped is x·y with the operands the other way around, if n transposes that and nothing else.
func swapped(n, product *graph.Node) *graph.Node {
	if product.Op() != op.DotOp {
		return nil
	}
	a := product.Attrs().(op.DotAttrs)
	x, y := product.Input(0), product.Input(1)
	b := len(a.BatchA)
	fx, fy := len(x.Shape())-b-len(a.ContractA), len(y.Shape())-b-len(a.ContractB)
	for i, p := range n.Attrs().(op.PermAttrs).Perm {
		want := i // batch axes stay, then come those of y, then those of x
		switch {
		case i >= b+fy:
			want = i - fy
		case i >= b:
			want = i + fx
		}
		if p != want {
			return nil
		}
	}
	return op.Dot(y, x, op.DotAttrs{BatchA: a.BatchB, BatchB: a.BatchA, ContractA: a.ContractB, ContractB: a.ContractA, Out: a.Out})
}

// sinker is a node behind a transpose, with its operands in the new graph.
type sinker struct {
	n     *graph.Node
	in    []*graph.Node
	fixed func(i int) bool // whether operand i follows from variables that a run leaves alone
}

// perm is the order in which a transposed operand has the axes of what it transposes; nil of another.
func perm(x *graph.Node) []int {
	if x.Op() != op.TransposeOp {
		return nil
	}
	return x.Attrs().(op.PermAttrs).Perm
}

// inverse undoes a transpose.
func inverse(p []int) []int {
	q := make([]int, len(p))
	for i, a := range p {
		q[a] = i
	}
	return q
}

// together moves a transpose behind an elementwise op or a concat, if all operands come transposed alike or can be had in the other order for nothing.
func (s *sinker) together() *graph.Node {
	var p []int
	for i, x := range s.in {
		if q := perm(x); q != nil && !s.fixed(i) {
			p = q
			break
		}
	}
	if p == nil {
		return nil
	}
	attrs := s.n.Attrs()
	if s.n.Op() == op.ConcatOp {
		attrs = op.AxisAttrs{Axis: p[attrs.(op.AxisAttrs).Axis]}
	}
	args := make([]*graph.Node, len(s.in))
	for i, x := range s.in {
		if len(x.Shape()) != len(p) {
			return nil
		}
		switch q := perm(x); {
		case q != nil && slices.Equal(q, p):
			args[i] = x.Input(0)
		case s.fixed(i) && x.Op() != op.BroadcastOp:
			args[i] = op.Transpose(x, inverse(p)...)
		default:
			if args[i] = rebroadcast(x, p); args[i] == nil {
				return nil
			}
		}
	}
	return op.Transpose(args[0].Graph().Apply(s.n.Op(), attrs, args...), p...)
}

// rebroadcast is what T, in the order p, makes x of, if x is a broadcast of something small.
func rebroadcast(x *graph.Node, p []int) *graph.Node {
	if x.Op() != op.BroadcastOp {
		return nil
	}
	src := x.Input(0)
	from := make(shape.Shape, len(p)) // src's shape, with all axes
	for i := range from {
		from[i] = 1
	}
	copy(from[len(p)-len(src.Shape()):], src.Shape())
	to := make(shape.Shape, len(p))
	var order []int // where axes of more than one element go
	for i, a := range p {
		to[a] = x.Shape()[i]
		if from[i] != 1 {
			order = append(order, a)
		}
	}
	if !slices.IsSorted(order) {
		if 8*src.Shape().Size() > x.Shape().Size() {
			return nil
		}
		return op.BroadcastTo(op.Transpose(op.Reshape(src, from...), inverse(p)...), to...)
	}
	small := make(shape.Shape, len(p))
	for i, a := range p {
		small[a] = from[i]
	}
	for len(small) > 0 && small[0] == 1 {
		small = small[1:]
	}
	return op.BroadcastTo(op.Reshape(src, small...), to...)
}

// along moves a transpose behind an op that treats each axis by itself.
func (s *sinker) along() *graph.Node {
	p := perm(s.in[0])
	if p == nil {
		return nil
	}
	back := func(v []int) []int {
		if v == nil {
			return nil
		}
		w := make([]int, len(v))
		for i, a := range p {
			w[a] = v[i]
		}
		return w
	}
	attrs := s.n.Attrs()
	switch a := attrs.(type) {
	case op.PadAttrs:
		a.Lo, a.Hi, a.Interior = back(a.Lo), back(a.Hi), back(a.Interior)
		attrs = a
	case op.SliceAttrs:
		attrs = op.SliceAttrs{Start: back(a.Start), Limit: back(a.Limit), Stride: back(a.Stride)}
	case op.AxesAttrs:
		attrs = op.AxesAttrs{Axes: within(p, a.Axes)}
	}
	x := s.in[0].Input(0)
	return op.Transpose(x.Graph().Apply(s.n.Op(), attrs, x), p...)
}

// within is where axes of a transposed value lie in what is transposed, sorted.
func within(p, axes []int) []int {
	out := make([]int, len(axes))
	for i, a := range axes {
		out[i] = p[a]
	}
	slices.Sort(out)
	return out
}

// reduce reduces what is transposed, over the axes that it has there, and brings the axes that are left into order.
func (s *sinker) reduce() *graph.Node {
	p := perm(s.in[0])
	if p == nil {
		return nil
	}
	x := s.in[0].Input(0)
	axes := within(p, s.n.Attrs().(op.AxesAttrs).Axes)
	left := make([]int, len(p)) // where an axis of x is in the result
	for i, k := 0, 0; i < len(p); i++ {
		if !slices.Contains(axes, i) {
			left[i] = k
			k++
		}
	}
	var q []int
	for _, a := range p {
		if !slices.Contains(axes, a) {
			q = append(q, left[a])
		}
	}
	y := x.Graph().Apply(s.n.Op(), op.AxesAttrs{Axes: axes}, x)
	if len(q) < 2 {
		return y
	}
	return op.Transpose(y, q...)
}

// axisGroup is a run of axes of one shape, from[0] up to from[1], that a reshape makes the run to of another.
type axisGroup struct{ from, to [2]int }

// axisGroups cuts a reshape of a to b into the smallest runs of axes that hold the same elements; axes of one element belong to the run before them, or to the first. Both hold as many
// elements, and some.
func axisGroups(a, b shape.Shape) (out []axisGroup) {
	for i, j := 0, 0; i < len(a) || j < len(b); {
		g := axisGroup{from: [2]int{i, i}, to: [2]int{j, j}}
		m, n := 1, 1
		if i < len(a) {
			m = a[i]
			i++
		}
		if j < len(b) {
			n = b[j]
			j++
		}
		for m != n {
			if m < n {
				m *= a[i]
				i++
			} else {
				n *= b[j]
				j++
			}
		}
		for i < len(a) && a[i] == 1 {
			i++
		}
		for j < len(b) && b[j] == 1 {
			j++
		}
		g.from[1], g.to[1] = i, j
		out = append(out, g)
	}
	return out
}

// places are where the axes of more than one element of a transposed value lie among those of what it transposes, -1 for others.
func places(p []int, x shape.Shape) []int {
	rank := make([]int, len(x))
	k := 0
	for i, d := range x {
		rank[i] = -1
		if d != 1 {
			rank[i] = k
			k++
		}
	}
	out := make([]int, len(p))
	for i, a := range p {
		out[i] = rank[a]
	}
	return out
}

// reshape reshapes what is transposed, if the axes that are split or joined lie there as they lie in the transposed value.
func (s *sinker) reshape() *graph.Node {
	p := perm(s.in[0])
	if p == nil || s.n.Shape().Size() == 0 {
		return nil
	}
	x := s.in[0].Input(0)
	at := places(p, x.Shape())
	groups := axisGroups(s.in[0].Shape(), s.n.Shape())
	first := make([]int, len(groups)) // place of a group's first axis in x
	for i, g := range groups {
		last := -1
		for _, k := range at[g.from[0]:g.from[1]] {
			switch {
			case k < 0:
			case last < 0:
				first[i], last = k, k
			case k != last+1:
				return nil
			default:
				last = k
			}
		}
		if last < 0 && i > 0 { // of one element: it goes with the group before it
			first[i] = first[i-1]
		}
	}
	order := make([]int, len(groups)) // the groups as they lie in x
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return first[i] - first[j] })
	var to shape.Shape
	axis := make([]int, len(s.n.Shape())) // where an axis of the result is
	for _, i := range order {
		for j := groups[i].to[0]; j < groups[i].to[1]; j++ {
			axis[j] = len(to)
			to = append(to, s.n.Shape()[j])
		}
	}
	if len(to) == 0 {
		return op.Reshape(x)
	}
	return op.Transpose(op.Reshape(x, to...), axis...)
}

// dot lets a product read what is transposed, if it then lies in memory as matrices, or takes the transpose of flattened axes into the weights.
func (s *sinker) dot() *graph.Node {
	a := s.n.Attrs().(op.DotAttrs)
	through := func(p []int, rank int, batch, contract []int) (b, c []int, ok bool) {
		move := func(axes []int) []int {
			out := make([]int, len(axes))
			for i, k := range axes {
				out[i] = p[k]
			}
			return out
		}
		return move(batch), move(contract), slices.IsSorted(move(op.Free(rank, batch, contract)))
	}
	p, q := perm(s.in[0]), perm(s.in[1])
	for _, take := range [][2]bool{{true, true}, {true, false}, {false, true}} {
		x, y, b := s.in[0], s.in[1], a
		ok := true
		if take[0] {
			if p == nil {
				continue
			}
			b.BatchA, b.ContractA, ok = through(p, len(p), a.BatchA, a.ContractA)
			x = x.Input(0)
		}
		if take[1] {
			if q == nil {
				continue
			}
			var okB bool
			b.BatchB, b.ContractB, okB = through(q, len(q), a.BatchB, a.ContractB)
			ok = ok && okB
			y = y.Input(0)
		}
		if !ok {
			continue
		}
		if d := op.Dot(x, y, b); matrixLike(d) {
			return d
		}
	}
	if len(a.ContractA) != 1 {
		return nil
	}
	for i, axes := range [2][2]int{{a.ContractA[0], a.ContractB[0]}, {a.ContractB[0], a.ContractA[0]}} {
		if !s.fixed(1 - i) {
			continue
		}
		if x, w := unflatten(s.in[i], axes[0], s.in[1-i], axes[1]); x != nil {
			if i == 0 {
				return op.Dot(x, w, a)
			}
			return op.Dot(w, x, a)
		}
	}
	return nil
}

func matrixLike(n *graph.Node) bool { _, ok := op.Matrices(n); return ok }

// unflatten gives x and w of a product over one axis of each, x = reshape(T z), as reshape(z) and w with that axis in z's order; nil if the axis is not all that T changes.
func unflatten(x *graph.Node, axisX int, w *graph.Node, axisW int) (_, _ *graph.Node) {
	if x.Op() != op.ReshapeOp || x.Input(0).Op() != op.TransposeOp || x.Shape().Size() == 0 {
		return nil, nil
	}
	t := x.Input(0)
	p, z := perm(t), t.Input(0)
	at := places(p, z.Shape())
	next := 0 // the place in z that the next axis must have
	var dims, order []int
	for _, g := range axisGroups(t.Shape(), x.Shape()) {
		if axisX < g.to[0] || axisX >= g.to[1] {
			for _, k := range at[g.from[0]:g.from[1]] {
				if k >= 0 && k != next {
					return nil, nil
				}
				if k >= 0 {
					next++
				}
			}
			continue
		}
		if x.Shape()[g.to[0]:g.to[1]].Size() != x.Shape()[axisX] {
			return nil, nil
		}
		for i := g.from[0]; i < g.from[1]; i++ {
			if at[i] >= 0 {
				dims = append(dims, t.Shape()[i])
				order = append(order, at[i]-next)
			}
		}
		for _, k := range order {
			if k < 0 || k >= len(order) {
				return nil, nil
			}
		}
		next += len(order)
	}
	ws := w.Shape()
	split := slices.Concat(ws[:axisW], dims, ws[axisW+1:])
	turn := make([]int, len(split)) // w's axes in z's order
	for i := range turn {
		turn[i] = i
	}
	for i, k := range order {
		turn[axisW+k] = axisW + i
	}
	return op.Reshape(z, x.Shape()...), op.Reshape(op.Transpose(op.Reshape(w, split...), turn...), ws...)
}
