package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// Hint makes what a layer of a student takes like what a layer of its teacher takes. The loss becomes greater by Weight times, as Kind says,
//
//	features   the mean squared difference of the two, which must have one shape (FitNets, arXiv:1412.6550, without its regressor)
//	attention  that of their maps, Σ x² over the channels at each position, each map with the norm 1 (arXiv:1612.03928); channels may differ in number
type Hint struct {
	Layer        string  `yaml:"layer"`
	TeacherLayer string  `yaml:"teacher_layer"` // "": a layer of the same name
	Kind         string  `yaml:"kind"`          // "": attention
	Weight       float64 `yaml:"weight"`
}

// hintKinds lists the kinds.
var hintKinds = []string{"attention", "features"}

// operands are the first operands of layers at their first application, by name.
type operands map[string]*graph.Node

func (o operands) tap(l *nn.Layer, x []*graph.Node) {
	if o[l.Name()] == nil && len(x) > 0 {
		o[l.Name()] = x[0]
	}
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
			h.Kind = "attention"
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
		}{{"the model", h.Layer, m.Net}, {"the teacher", h.TeacherLayer, t.Model.Net}} {
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

// loss is how far the student is from the teacher.
func (h Hint) loss(g *graph.Graph, student, teacher *graph.Node) *graph.Node {
	teacher = op.StopGradient(teacher)
	who := []*graph.Node{student, teacher}
	if !student.DType().IsFloat() || !teacher.DType().IsFloat() {
		g.Fail("hint", who, "the layers take %v and %v; hints are for floats", student.Type(), teacher.Type())
	}
	if h.Kind == "attention" {
		student, teacher = attentionMap(g, student), attentionMap(g, teacher)
	}
	if !student.Shape().Equal(teacher.Shape()) {
		g.Fail("hint", who, "the layers %q and %q of model and teacher give %s of %v and %v, which must be alike", h.Layer, h.TeacherLayer, h.Kind, student.Shape(), teacher.Shape())
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
