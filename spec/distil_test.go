package spec_test

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/spec"
)

// A teacher that writes has settings of its own, and does not go with those of one that predicts.
func TestDistilTexts(t *testing.T) {
	const head = "data: pairs:a.tsv\nmodel: [Flatten]\ncompile: {optimizer: adam, loss: mse}\nfit: {epochs: 1}\ndistil: "
	for distil, want := range map[string]struct {
		beams int
		both  bool
	}{
		"{teacher: x, texts: teacher}":        {5, false},
		"{teacher: x, texts: both, beams: 2}": {2, true},
		"{teacher: x, temperature: 2}":        {0, false},
	} {
		s, err := spec.Parse([]byte(head+distil), "a.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if beams, both := s.Texts(); beams != want.beams || both != want.both {
			t.Errorf("%s: %d %v", distil, beams, both)
		}
		if m, err := s.Teacher(); m != nil || err != nil { // Once is not set: nothing is computed
			t.Errorf("%s: %v %v", distil, m, err)
		}
		if s.Once = true; want.beams > 0 {
			if _, err := s.Teacher(); err == nil || !strings.Contains(err.Error(), "a.yaml:5: teacher: ") {
				t.Errorf("%s: a teacher that is not there: %v", distil, err)
			}
		}
	}
	for distil, want := range map[string]string{
		"{texts: teacher}":                           "teacher is missing",
		"{teacher: x, texts: pupil}":                 `unknown word "pupil"`,
		"{teacher: x, beams: 3}":                     "beams are those of a teacher that writes",
		"{teacher: x, texts: both, beams: 0}":        "beams must be at least 1",
		"{teacher: x, texts: both, weight: 0.5}":     "temperature, weight, hints and cache are settings of a teacher that predicts",
		"{teacher: x, texts: teacher, cache: true}":  "settings of a teacher that predicts",
		"{teacher: self, texts: teacher}":            "has nothing to write before it is trained",
		"{teacher: x, texts: teacher, beams: three}": "beams",
	} {
		if _, err := spec.Parse([]byte(head+distil), "a.yaml"); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.yaml:5") {
			t.Errorf("%s: want an error with %q, not %v", distil, want, err)
		}
	}
}
