package train

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// Hint makes what a layer of a student takes like what a layer of its teacher takes. The loss becomes greater by Weight times, as Kind says,
//
//	features   the mean squared difference of the two, which must have one shape (FitNets, arXiv:1412.6550, without its regressor)
//	attention  that of their maps, Σ x² over the channels at each position, each map with the norm 1 (arXiv:1612.03928); channels may differ in number
//	heads      the divergence KL(teacher ‖ student) between the probabilities that the layers' attention gives its keys, the mean over examples, heads and positions (as MobileBERT does, arXiv:2004.02984, and MiniLM with its last layer,
//	           arXiv:2002.10957); where the numbers of heads differ, between the means over heads. Layers are named as "block_0", or, if they have several attentions, "decoder_0/cross_attention". All pairs of positions
//	           are then kept in memory.
type Hint struct {
	Layer        string  `yaml:"layer"`
	TeacherLayer string  `yaml:"teacher_layer"` // "": a layer of the same name
	Kind         string  `yaml:"kind"`          // "": attention
	Weight       float64 `yaml:"weight"`
}

// The kinds of hints.
const (
	hintAttention = "attention"
	hintFeatures  = "features"
	hintHeads     = "heads"
)

// hintKinds lists the kinds.
var hintKinds = []string{hintAttention, hintFeatures, hintHeads}

// shown is what hints compare, at the first application of a layer: first operands of layers by name, and the probabilities of their attentions.
type shown struct {
	operands map[string]*graph.Node
	attends  map[string]*graph.Node // [batch heads time keys]
}

// watch makes a call fill it in, as far as the hints ask for it.
func (t *Teacher) watch(call *nn.Call) *shown {
	s := &shown{map[string]*graph.Node{}, map[string]*graph.Node{}}
	call.Tap = func(l *nn.Layer, x []*graph.Node) {
		if s.operands[l.Name()] == nil && len(x) > 0 {
			s.operands[l.Name()] = x[0]
		}
	}
	if slices.ContainsFunc(t.Hints, func(h Hint) bool { return h.Kind == hintHeads }) { // probabilities cost memory
		call.Attend = func(part string, p *graph.Node) {
			if s.attends[part] == nil {
				s.attends[part] = p
			}
		}
	}
	return s
}

// of is what a layer shows to a kind of hint.
func (s *shown) of(g *graph.Graph, kind, layer, who string) *graph.Node {
	if kind != hintHeads {
		return s.operands[layer]
	}
	var parts []string
	for part := range s.attends {
		if part == layer || strings.HasPrefix(part, layer+"/") {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		g.Fail("hint", nil, "%s has no attention %q, which a hint of kind heads compares; it has %s", who, layer, strings.Join(slices.Sorted(maps.Keys(s.attends)), ", "))
	}
	if len(parts) != 1 {
		g.Fail("hint", nil, "layer %q of %s has %d attentions %v; a hint of kind heads needs the name of one", layer, who, len(parts), slices.Sorted(slices.Values(parts)))
	}
	return s.attends[parts[0]]
}

// checkHints fills in what is not set, and says what is wrong.
func (t *Teacher) checkHints(m *Model) error {
	t.Hints = slices.Clone(t.Hints)
	for i := range t.Hints {
		h := &t.Hints[i]
		if h.TeacherLayer == "" {
			h.TeacherLayer = h.Layer
		}
		if h.Kind == "" {
			h.Kind = hintAttention
		}
		if !slices.Contains(hintKinds, h.Kind) {
			return fmt.Errorf("train: unknown kind of hint %q (known: %s)", h.Kind, strings.Join(hintKinds, ", "))
		}
		if !(h.Weight > 0) || h.Weight-h.Weight != 0 {
			return fmt.Errorf("train: the weight of the hint for layer %q must be a positive number, not %g", h.Layer, h.Weight)
		}
		for _, side := range []struct {
			who, name string
			net       *nn.Model
		}{{"the model", h.layerOf(h.Layer), m.Net}, {"the teacher", h.layerOf(h.TeacherLayer), t.Model.Net}} {
			var names []string
			for _, l := range side.net.Layers() {
				names = append(names, l.Name())
			}
			if !slices.Contains(names, side.name) {
				return fmt.Errorf("train: hint: %s has no layer %q; it has %s", side.who, side.name, strings.Join(names, ", "))
			}
		}
	}
	return nil
}

// layerOf is the layer that a hint names: with heads a part of it may be named too.
func (h Hint) layerOf(name string) string {
	if h.Kind == hintHeads {
		name, _, _ = strings.Cut(name, "/")
	}
	return name
}

// loss is how far the student is from the teacher.
func (h Hint) loss(g *graph.Graph, seen, told *shown) *graph.Node {
	student, teacher := seen.of(g, h.Kind, h.Layer, "the model"), op.StopGradient(told.of(g, h.Kind, h.TeacherLayer, "the teacher"))
	who := []*graph.Node{student, teacher}
	if !student.DType().IsFloat() || !teacher.DType().IsFloat() {
		g.Fail("hint", who, "the layers take %v and %v; hints are for floats", student.Type(), teacher.Type())
	}
	switch h.Kind {
	case hintAttention:
		student, teacher = attentionMap(g, student), attentionMap(g, teacher)
	case hintHeads:
		student, teacher = op.Convert(student, dtype.F32), op.Convert(teacher, dtype.F32)
		if student.Shape()[1] != teacher.Shape()[1] {
			student, teacher = op.Mean(student, 1), op.Mean(teacher, 1)
		}
	}
	if !student.Shape().Equal(teacher.Shape()) {
		g.Fail("hint", who, "the layers %q and %q of model and teacher give %s of %v and %v, which must be alike", h.Layer, h.TeacherLayer, h.Kind, student.Shape(), teacher.Shape())
	}
	if h.Kind == hintHeads {
		log := func(p *graph.Node) *graph.Node { return op.Log(op.Max(p, op.Like(p, 1e-12))) } // keys that are masked have 0
		return op.MeanAll(op.Sum(op.Mul(teacher, op.Sub(log(teacher), log(student))), len(teacher.Shape())-1))
	}
	d := op.Sub(student, teacher)
	return op.MeanAll(op.Mul(d, d))
}

// attentionMap is Σ x² over the last axis, [batch, positions] with the norm √positions, so that a mean over positions is one of numbers near 1.
func attentionMap(g *graph.Graph, x *graph.Node) *graph.Node {
	s := x.Shape()
	if len(s) < 3 {
		g.Fail("hint", []*graph.Node{x}, "a map of attention needs positions and channels, not %v", s)
	}
	a := op.Reshape(op.Sum(op.Mul(x, x), len(s)-1), s[0], s[1:len(s)-1].Size())
	n := op.Add(op.Mean(op.Mul(a, a), 1), op.Like(a, 1e-12))
	return op.Mul(a, op.Reshape(op.Div(op.Like(a, 1), op.Sqrt(n)), s[0], 1))
}

// teachesItself reports whether the model is its own teacher, whose weights checkpoints then keep.
func (m *Model) teachesItself() bool { return m.teacher != nil && m.teacher.Self }
