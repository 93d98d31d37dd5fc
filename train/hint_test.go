package train_test

import (
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// Hints add to the loss what their formulas say, and teach: after some steps the student's values are nearer to the teacher's.
func TestHints(t *testing.T) {
	base := adaptable(t, optim.SGD(0, false))
	net := func(hidden int) *nn.Model {
		return nn.Sequential(nn.Reshape(2, 2).Named("rows"), nn.Dense(hidden).Named("wide"), nn.Flatten().Named("flat"), nn.Dense(3, nn.Softmax).Named("scores"))
	}
	compile := func(hidden int, seed uint64, rate float64, opts ...train.Option) *train.Model {
		t.Helper()
		m, err := train.Compile(net(hidden), base.Spec, optim.Adam(optim.Rate(rate)), train.SparseCategoricalCrossentropy, append(opts, train.Seed(seed))...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	x, y := base.Spec.Tensors(8)
	if err := points(8).Fill([]int{0, 1, 2, 3, 4, 5, 6, 7}, x, y); err != nil {
		t.Fatal(err)
	}
	teacher := compile(6, 1, 0)
	operand := func(m *train.Model) ([]float64, int) {
		t.Helper()
		in, err := m.LayerInputs(x...)
		if err != nil {
			t.Fatal(err)
		}
		v := in["flat"]
		var out []float64
		for _, f := range v.F32() {
			out = append(out, float64(f))
		}
		return out, v.Shape()[2]
	}
	maps := func(m *train.Model) []float64 { // [8, 2], of the norm √2 each
		v, channels := operand(m)
		out := make([]float64, 8*2)
		for i, f := range v {
			out[i/channels] += f * f
		}
		for b := range 8 {
			n := 0.0
			for _, f := range out[b*2 : b*2+2] {
				n += f * f / 2
			}
			for i := range 2 {
				out[b*2+i] /= math.Sqrt(n + 1e-12)
			}
		}
		return out
	}
	far := func(a, b []float64) (sum float64) {
		for i := range a {
			sum += (a[i] - b[i]) * (a[i] - b[i]) / float64(len(a))
		}
		return sum
	}
	for _, c := range []struct {
		hidden int
		kind   string
		values func(m *train.Model) []float64
	}{{6, "features", func(m *train.Model) []float64 { v, _ := operand(m); return v }}, {5, "attention", maps}} {
		hint := train.Hint{Layer: "flat", Kind: c.kind, Weight: 3}
		plain := compile(c.hidden, 2, 0, train.Distil(train.Teacher{Model: teacher, Temperature: 1, Weight: 0.5}))
		hinted := compile(c.hidden, 2, 0, train.Distil(train.Teacher{Model: teacher, Temperature: 1, Weight: 0.5, Hints: []train.Hint{hint}}))
		a, err := plain.Step(x, y, 0)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hinted.Step(x, y, 0)
		if err != nil {
			t.Fatal(err)
		}
		distance := far(c.values(teacher), c.values(hinted))
		if want := a + 3*distance; math.Abs(b-want) > 1e-4*want {
			t.Errorf("%s: loss %g, the formula gives %g", c.kind, b, want)
		}
		pupil := compile(c.hidden, 2, 0.01, train.Distil(train.Teacher{Model: teacher, Temperature: 1, Weight: 0.5, Hints: []train.Hint{hint}}))
		for range 100 {
			if _, err := pupil.Step(x, y, 0.01); err != nil {
				t.Fatal(err)
			}
		}
		if now := far(c.values(teacher), c.values(pupil)); now > distance/2 {
			t.Errorf("%s: the student is %g from its teacher, was %g", c.kind, now, distance)
		}
	}
	for want, h := range map[string]train.Hint{
		"unknown kind": {Layer: "flat", Kind: "feature", Weight: 1}, "positive number": {Layer: "flat"}, `the model has no layer "flat_1"`: {Layer: "flat_1", TeacherLayer: "flat", Weight: 1},
		`the teacher has no layer "no"`: {Layer: "flat", TeacherLayer: "no", Weight: 1}, "positions and channels": {Layer: "scores", Weight: 1}, "must be alike": {Layer: "flat", Kind: "features", Weight: 1},
	} {
		_, err := train.Compile(net(5), base.Spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Distil(train.Teacher{Model: teacher, Temperature: 1, Weight: 0.5, Hints: []train.Hint{h}}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}
