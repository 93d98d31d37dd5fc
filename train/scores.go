package train

import (
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// A last layer that is split: each rank has the scores of some classes. Loss and metrics are made of a few numbers that the ranks of a row tell each other for each example, or position of a
// sequence, as Shoeybi et al. do (Megatron-LM, arXiv:1909.08053, section 3); a whole row of scores is put together only for predictions.

// partScores are those of this rank's classes, in a graph.
type partScores struct {
	*nn.Scores
	split *nn.Split
	seen  map[*graph.Node]*entropy // by labels
}

// entropy is what all ranks together know of the softmax: [batch …] each.
type entropy struct {
	lse *graph.Node // log Σ e^score over all classes
	own *graph.Node // the label's score, 0 of a label that is no class
	sum *graph.Node // of all scores
}

func scoresOf(c *nn.Call) *partScores {
	if c.Scores == nil {
		return nil
	}
	return &partScores{c.Scores, c.Split, map[*graph.Node]*entropy{}}
}

// full is the type of all classes' scores.
func (s *partScores) full() graph.Type {
	t := s.Part.Type()
	t.Shape = t.Shape.Clone()
	t.Shape[len(t.Shape)-1] = s.Of
	return t
}

// examples is the shape without the classes.
func (s *partScores) examples() shape.Shape { return s.Part.Shape()[:len(s.Part.Shape())-1] }

// ahead is x as [1 …].
func ahead(x *graph.Node) *graph.Node { return op.Reshape(x, append([]int{1}, x.Shape()...)...) }

// behind is x as [… 1].
func behind(x *graph.Node) *graph.Node { return op.Reshape(x, append(x.Shape().Clone(), 1)...) }

// gathered is x of every rank, [ranks …]: each adds zeros to the others', which changes no value.
func (s *partScores) gathered(x *graph.Node) *graph.Node {
	y := ahead(x)
	lo, hi := make([]int, len(y.Shape())), make([]int, len(y.Shape()))
	lo[0], hi[0] = s.split.Rank, s.split.Of-1-s.split.Rank
	return op.AllReduce(op.Pad(y, lo, hi, 0), s.split.Group)
}

// of takes row i of [ranks, rows, …] for all ranks: [ranks …].
func (s *partScores) of(x *graph.Node, i int) *graph.Node {
	return op.Reshape(op.SliceAxis(x, 1, i, i+1), append([]int{s.split.Of}, s.examples()...)...)
}

// wide gives every rank's place x [batch …].
func (s *partScores) wide(x *graph.Node) *graph.Node {
	return op.BroadcastTo(ahead(x), append([]int{s.split.Of}, x.Shape()...)...)
}

// together is log Σ e^x over the ranks of x [ranks …].
func (s *partScores) together(x *graph.Node) *graph.Node {
	m := op.StopGradient(op.ReduceMax(x, 0))
	return op.Add(m, op.Log(op.Sum(op.Exp(op.Sub(x, s.wide(m))), 0)))
}

// entropy finds what a cross-entropy with class numbers i32 is made of.
func (s *partScores) entropy(labels *graph.Node) *entropy {
	if e := s.seen[labels]; e != nil {
		return e
	}
	all := s.gathered(op.XentPart(s.Part, op.Sub(labels, op.Like(labels, float64(s.Lo)))))
	e := &entropy{lse: s.together(s.of(all, 0)), own: op.Sum(s.of(all, 1), 0), sum: op.Sum(s.of(all, 2), 0)}
	s.seen[labels] = e
	return e
}

// nobody are labels that are no class.
func (s *partScores) nobody() *graph.Node {
	t := graph.Type{DType: dtype.I32, Shape: s.examples()}
	return op.Full(s.Part.Graph(), t, math.MinInt32)
}

// sparse is the cross-entropy with class numbers, [batch …]; see op.SparseXent.
func (s *partScores) sparse(target *graph.Node, a op.XentAttrs) *graph.Node {
	e := s.entropy(target)
	l := op.Sub(e.lse, op.Mul(e.own, op.Like(e.own, 1-a.Smoothing)))
	if a.Smoothing != 0 {
		l = op.Sub(l, op.Mul(e.sum, op.Like(e.sum, a.Smoothing/float64(s.Of))))
	}
	l = op.Select(op.And(op.Ge(target, op.Like(target, 0)), op.Lt(target, op.Like(target, float64(s.Of)))), l, op.Like(l, math.NaN()))
	if a.UseIgnore {
		l = op.Select(op.Eq(target, op.Like(target, float64(a.Ignore))), op.Like(l, 0), l)
	}
	return l
}

// dense is the cross-entropy with probabilities of all classes, [batch …]: Σ t·(log Σ e^score - score).
func (s *partScores) dense(target *graph.Node) *graph.Node {
	last := len(target.Shape()) - 1
	lse := op.SliceAxis(op.XentPart(s.Part, s.nobody()), 0, 0, 1)
	all := s.gathered(op.Concat(0, lse, ahead(op.Sum(op.Mul(op.SliceAxis(target, last, s.Lo, s.Hi), s.Part), last))))
	return op.Sub(op.Mul(s.together(s.of(all, 0)), op.Sum(target, last)), op.Sum(s.of(all, 1), 0))
}

// probabilities are those of all classes, [batch … classes].
func (s *partScores) probabilities() *graph.Node {
	return op.Exp(op.Sub(s.whole(), s.along(s.entropy(s.nobody()).lse, s.full().Shape)))
}

// whole are the scores of all classes.
func (s *partScores) whole() *graph.Node {
	lo, hi := make([]int, len(s.Part.Shape())), make([]int, len(s.Part.Shape()))
	lo[len(lo)-1], hi[len(hi)-1] = s.Lo, s.Of-s.Hi
	return op.AllReduce(op.Pad(s.Part, lo, hi, 0), s.split.Group)
}

// along repeats x [batch …] for each class of a shape [batch … classes].
func (s *partScores) along(x *graph.Node, to shape.Shape) *graph.Node {
	return op.BroadcastTo(behind(x), to...)
}

// verdict is what most metrics want to know of an example.
type verdict struct {
	class int     // the most probable
	above int     // how many classes are more probable than the right one; of equals the first are
	logp  float64 // of the right one's probability
}

// knows are the parts of a verdict that cost something: a metric says which it looks at.
type knows uint8

const (
	knowsClass knows = 1 << iota
	knowsAbove
)

// judged are the verdicts, [batch … 3], as far as metrics look at them.
func (s *partScores) judged(target *graph.Node, need knows) *graph.Node {
	if target.DType().IsFloat() {
		target = op.ArgMax(target, len(target.Shape())-1)
	}
	e, z := s.entropy(target), s.Part
	g, last := z.Graph(), len(z.Shape())-1
	var rows []*graph.Node
	if need&knowsClass != 0 {
		rows = append(rows, ahead(op.ReduceMax(z, last)), ahead(op.Add(op.Convert(op.ArgMax(z, last), dtype.F32), op.Scalar(g, dtype.F32, float64(s.Lo)))))
	}
	if need&knowsAbove != 0 {
		own := s.along(e.own, z.Shape())
		at := op.Iota(g, graph.Type{DType: dtype.I32, Shape: z.Shape()}, last)
		before := op.Lt(at, s.along(op.Sub(target, op.Like(target, float64(s.Lo))), z.Shape()))
		rows = append(rows, ahead(op.Sum(op.Convert(op.Or(op.Gt(z, own), op.And(op.Eq(z, own), before)), dtype.F32), last)))
	}
	none := op.Full(g, graph.Type{DType: dtype.F32, Shape: s.examples()}, 0)
	class, above := none, none
	if len(rows) > 0 {
		all := s.gathered(op.Concat(0, rows...))
		if need&knowsClass != 0 {
			best := s.of(all, 0)
			class = op.ReduceMin(op.Select(op.Eq(best, s.wide(op.ReduceMax(best, 0))), s.of(all, 1), op.Like(best, math.MaxInt32)), 0)
		}
		if need&knowsAbove != 0 {
			above = op.Sum(s.of(all, len(rows)-1), 0)
		}
	}
	return op.Concat(last, behind(class), behind(above), behind(op.Sub(e.own, e.lse)))
}

// outJudged is the name of the output of verdicts, which is where predictions are otherwise.
const outJudged = "judged"

// judges is a meter that can do with verdicts, if ofParts says so, and what it looks at.
type judges interface {
	ofParts() (need knows, ok bool)
	judge(v verdict, label, classes int)
}

// judgesParts reports whether all metrics can do with verdicts, and what they look at.
func (m *Model) judgesParts() (need knows, ok bool) {
	for _, k := range m.metrics {
		j, ok := k.make().(judges)
		if !ok {
			return 0, false
		}
		own, ok := j.ofParts()
		if !ok {
			return 0, false
		}
		need |= own
	}
	return need, true
}

// show shows meters the first output of a program: predictions, or verdicts over so many classes.
func show(meters []meter, classes int, out, target *tensor.Tensor) {
	if classes == 0 {
		for _, k := range meters {
			k.add(out, target)
		}
		return
	}
	v := out.F32()
	for i := range len(v) / 3 {
		l := label(target, i, classes)
		for _, k := range meters {
			k.(judges).judge(verdict{int(v[3*i]), int(v[3*i+1]), float64(v[3*i+2])}, l, classes)
		}
	}
}
