package spec_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
)

const small = `data: x
model: [Flatten, Dense: {units: 2, activation: softmax}]
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
fit:
  batch_size: 4
  augment:
`

// pictures is a set of n random pictures of 6×6 pixels and 3 channels, in two classes.
func pictures(t *testing.T, n int) *data.Set {
	t.Helper()
	pix, label := make([]byte, n*6*6*3), make([]byte, n)
	for i := range pix {
		pix[i] = byte(i*i*31 + i>>3)
	}
	for i := range label {
		label[i] = byte(i % 2)
	}
	ds, err := data.FromPixels(pix, shape.Of(6, 6, 3), label, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	return &data.Set{Name: "x", Train: ds, Test: ds}
}

func TestAugmentMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"    - flop":                                                     `a.yaml:7: augment: unknown change "flop", did you mean "flip"? (known: crop, flip, mixup, normalise, rotate)`,
		"    - flip\n    - crop: four":                                   `a.yaml:8: augment: crop: pad must be a number like 4, not "four"`,
		"    - crop: 1.5":                                                "a.yaml:7: augment: crop: pad is a whole number of pixels",
		"    - rotate: {degree: 3}":                                      `a.yaml:7: augment: rotate has no key "degree", did you mean "degrees"?`,
		"    - normalise\n    - flip":                                    "a.yaml:8: augment: flip comes after normalise",
		"    - normalise: {mean: [0.5]}":                                 "a.yaml:7: augment: normalise takes as many values of std",
		"    - normalise: {mean: [1], std: [0]}":                         "std 0 is not positive",
		"    - normalise: {mean: a, std: [1]}":                           "a.yaml:7: augment: normalise: mean is a list of numbers",
		"    - {flip: 1, crop: 2}":                                       "a.yaml:7: augment: a change is a name",
		"    - normalise: {means: [1], std: [1]}":                        `did you mean "mean"?`,
		"    flip: 0.5":                                                  "a.yaml:7: fit: augment must be a list",
		"    - mixup: 0":                                                 "a.yaml:7: augment: mixup: alpha must be above 0 and at most 1e6, not 0",
		"    - mixup: .nan":                                              "a.yaml:7: augment: mixup: alpha must be above 0",
		"    - mixup: {beta: 1}":                                         `a.yaml:7: augment: mixup has no key "beta"`,
		"    - mixup\n    - flip":                                        "a.yaml:8: augment: flip comes after mixup",
		"    - mixup\n    - mixup: 1":                                    "a.yaml:8: augment: mixup comes after mixup",
		"    - mixup\ndistil: {teacher: x, cache: true}":                 "a.yaml:8: distil: cache: the teacher predicts each example once",
		"    - mixup\ntransfer: {from: x, freeze: [\"*\"], cache: true}": "a.yaml:8: transfer: cache: each example is computed once",
	} {
		if _, err := spec.Parse([]byte(small+text+"\n"), "a.yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
	// What only the data can tell.
	rows, err := data.FromSlices(make([]float32, 40), shape.Of(4), make([]int32, 10), shape.Of(), 2)
	if err != nil {
		t.Fatal(err)
	}
	words, err := data.FromSlices(make([]int32, 40), shape.Of(4), make([]int32, 10), shape.Of(), 2)
	if err != nil {
		t.Fatal(err)
	}
	s, err := spec.Parse([]byte(small+"    - mixup\n"), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ready(&data.Set{Train: words, Test: words}); err == nil || !strings.Contains(err.Error(), "a.yaml:7: data: mixup adds examples up, which needs inputs of f32") {
		t.Errorf("mixup of words: %v", err)
	}
	for text, want := range map[string]string{
		"    - rotate":   "a.yaml:7: augment: Rotate needs f32 pictures",
		"    - flip: 3":  "a.yaml:7: augment: FlipHorizontal(3): a probability is between 0 and 1",
		"    - crop: -1": "a.yaml:7: augment: RandomCrop(-1)",
		"    - normalise: {mean: [1, 2], std: [1, 2]}": "a.yaml:7: augment: normalise: data: a normalisation with 2 means",
	} {
		s, err := spec.Parse([]byte(small+text+"\n"), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Ready(&data.Set{Train: rows, Test: rows}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

// Both parts of the data are normalised, after what else happens to the training part, and the model keeps with what.
func TestNormalise(t *testing.T) {
	set := pictures(t, 16)
	for _, text := range []string{"    - normalise", "    - flip: 0\n    - crop: {pad: 0}\n    - normalise", "    - flip: 0\n    - mixup: {alpha: 0.3}\n    - normalise"} {
		s, err := spec.Parse([]byte(small+text+"\n"), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		ready, err := s.Ready(set)
		if err != nil {
			t.Fatal(err)
		}
		l, err := data.NewLoader(ready.Train, data.LoaderConfig{Batch: 16, Epochs: 1, Transforms: s.Fit.Augment})
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		x, y := ready.Test.Spec().Tensors(16)
		if err := ready.Test.Fill([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, x, y); err != nil {
			t.Fatal(err)
		}
		var mean, square float64
		for i, v := range b.X[0].F32() {
			mean, square = mean+float64(v), square+float64(v)*float64(v)
			if v != x[0].F32()[i] {
				t.Fatalf("%q: training and test examples are normalised differently: %g and %g", text, v, x[0].F32()[i])
			}
		}
		n := float64(x[0].Len())
		if math.Abs(mean/n) > 1e-5 || math.Abs(square/n-1) > 1e-5 {
			t.Errorf("%q: mean %g, variance %g", text, mean/n, square/n)
		}
		l.Close()
		if ready.Test.Spec().Norm == nil {
			t.Error("the spec does not tell of the normalisation")
		}
		m, err := s.Compile(ready.Test.Spec(), 1, train.Threads(1))
		if err != nil {
			t.Fatal(err)
		}
		file := t.TempDir() + "/m.safetensors"
		if err := m.Save(file); err != nil {
			t.Fatal(err)
		}
		again, err := train.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := again.Spec.Norm; got == nil || len(got.Mean) != 3 || got.Std[2] != ready.Test.Spec().Norm.Std[2] {
			t.Errorf("the saved model has the normalisation %+v", got)
		}
		if _, err := again.Spec.Norm.ApplySet(ready); err == nil {
			t.Error("data was normalised twice")
		}
	}
	s, err := spec.Parse([]byte(small+"    - flip\n    - crop: 2\n    - normalise: {mean: 0.5, std: 0.25}\n"), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Changes(); got != "flip, crop 2, normalise" {
		t.Errorf("changes %q", got)
	}
}

// mixup is a setting of the training, with an alpha of its own.
func TestMixup(t *testing.T) {
	for text, want := range map[string]float64{"    - mixup": 0.2, "    - mixup: 1": 1, "    - flip\n    - mixup: {alpha: 0.5}\n    - normalise": 0.5, "    - flip": 0} {
		s, err := spec.Parse([]byte(small+text+"\n"), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // also the second time
			if _, err := s.Ready(pictures(t, 8)); err != nil {
				t.Fatal(err)
			}
		}
		if n := strings.Count(text, "flip") + strings.Count(text, "normalise"); s.Fit.Mixup != want || len(s.Fit.Augment) != n {
			t.Errorf("%q: alpha %g and %d changes", text, s.Fit.Mixup, len(s.Fit.Augment))
		}
	}
}
