package spec_test

import (
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/spec"
)

// Whatever the file says, reading it, making its model and readying data for it end with a result or an error, never a panic.
func FuzzParse(f *testing.F) {
	for _, name := range spec.Presets() {
		s, err := spec.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(s.Text))
	}
	f.Add([]byte(tied))
	f.Add([]byte(small + "    - flip: 0.3\n    - {crop: {pad: 2}}\n    - normalise: {mean: [0.1], std: [2]}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("{data: x, model: [Dense: {units: 99999999999}], compile: {optimizer: {name: sgd, learning_rate: {schedule: step, at: [3, 1]}}, loss: mse}}"))
	images := data.Spec{Inputs: []data.Field{{Name: "image", Shape: shape.Of(8, 8, 1), DType: dtype.F32}}, Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 3}
	set := &data.Set{Name: "x"}
	var err error
	if set.Train, err = data.FromPixels(make([]byte, 8*8*4), shape.Of(8, 8, 1), []byte{0, 1, 2, 0}, []string{"a", "b", "c"}); err != nil {
		f.Fatal(err)
	}
	set.Test = set.Train
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := spec.Parse(text, "fuzz.yaml")
		if err != nil {
			return
		}
		_, _ = s.Model(images)
		_, _ = s.Ready(set)
		_ = s.Changes()
	})
}
