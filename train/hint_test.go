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

// Hints about heads compare the probabilities that attention gives its keys, by KL(teacher ‖ student); where heads differ in number, their means.
func TestHintsOfHeads(t *testing.T) {
	base := adaptable(t, optim.SGD(0, false))
	compile := func(heads int, seed uint64, rate float64, opts ...train.Option) (*train.Model, error) {
		net := nn.Sequential(nn.Reshape(4, 1).Named("rows"), nn.Dense(12).Named("wide"), nn.TransformerBlock(heads, nn.Hidden(8)).Named("block"), nn.Flatten(), nn.Dense(3, nn.Softmax).Named("scores"))
		return train.Compile(net, base.Spec, optim.Adam(optim.Rate(rate)), train.SparseCategoricalCrossentropy, append(opts, train.Seed(seed))...)
	}
	x, y := base.Spec.Tensors(8)
	if err := points(8).Fill([]int{0, 1, 2, 3, 4, 5, 6, 7}, x, y); err != nil {
		t.Fatal(err)
	}
	teacher, err := compile(2, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	sharpen(t, teacher)
	probabilities := func(m *train.Model) ([]float32, []int) {
		t.Helper()
		maps, err := m.AttentionMaps(x...)
		if err != nil || len(maps) != 1 {
			t.Fatal(err, maps)
		}
		return maps[0].P.F32(), maps[0].P.Shape()
	}
	far := func(m *train.Model) (sum float64) {
		p, s := probabilities(teacher)
		q, r := probabilities(m)
		heads, each := s[1], s[2]*s[3]
		if r[1] != s[1] {
			heads = 1
		}
		mean := func(v []float32, s []int, b, h, i int) float64 { // of one head, or of all
			if heads > 1 {
				return float64(v[(b*s[1]+h)*each+i])
			}
			sum := 0.0
			for h := range s[1] {
				sum += float64(v[(b*s[1]+h)*each+i]) / float64(s[1])
			}
			return sum
		}
		for b := range s[0] {
			for h := range heads {
				for i := range each {
					a := mean(p, s, b, h, i)
					sum += a * math.Log(a/mean(q, r, b, h, i)) / float64(s[0]*heads*s[2])
				}
			}
		}
		return sum
	}
	for _, heads := range []int{2, 3} {
		distil := func(hints ...train.Hint) train.Option {
			return train.Distil(train.Teacher{Model: teacher, Temperature: 1, Weight: 0.5, Hints: hints})
		}
		hint := train.Hint{Layer: "block", Kind: "heads", Weight: 3}
		if heads == 3 {
			hint.Layer = "block/attention"
		}
		loss := func(rate float64, steps int, opt train.Option) (float64, *train.Model) {
			t.Helper()
			m, err := compile(heads, 2, rate, opt)
			if err != nil {
				t.Fatal(err)
			}
			var v float64
			for range steps {
				if v, err = m.Step(x, y, rate); err != nil {
					t.Fatal(err)
				}
			}
			return v, m
		}
		a, _ := loss(0, 1, distil())
		b, m := loss(0, 1, distil(hint))
		distance := far(m)
		if want := a + 3*distance; math.Abs(b-want) > 1e-4*want || distance < 1e-4 {
			t.Errorf("%d heads: loss %g, the formula gives %g; they are %g from each other", heads, b, want, distance)
		}
		if _, m := loss(0.01, 100, distil(hint)); far(m) > distance/2 {
			t.Errorf("%d heads: the student is %g from its teacher, was %g", heads, far(m), distance)
		}
		for want, h := range map[string]train.Hint{
			`no attention "wide", which a hint of kind heads compares; it has block/attention`: {Layer: "wide", TeacherLayer: "block", Kind: "heads", Weight: 1},
			`the model has no attention "block/attend"`:                                        {Layer: "block/attend", TeacherLayer: "block", Kind: "heads", Weight: 1},
			`the teacher has no layer "blocks"`:                                                {Layer: "block", TeacherLayer: "blocks/attention", Kind: "heads", Weight: 1},
			"(known: attention, features, heads)":                                              {Layer: "block", Kind: "head", Weight: 1},
			"the weight of the hint for layer \"block\"":                                       {Layer: "block", Kind: "heads"},
		} {
			if _, err := compile(heads, 2, 0, distil(h)); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("want an error with %q, not %v", want, err)
			}
		}
	}
}

// sharpen makes a model's attention look at some keys more than at others.
func sharpen(t *testing.T, m *train.Model) {
	t.Helper()
	for _, p := range []string{"query", "key"} {
		name := "block/attention/" + p + "/kernel"
		v, err := m.State().Get(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range v.F32() {
			v.F32()[i] *= 2
		}
		if err := m.State().Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
}
