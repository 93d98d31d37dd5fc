package ref_test

import (
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/op"
)

// The reference agrees with itself by construction: what this holds is that every good sample can be built and run, and every
// bad one is refused with the words that the sample names.
func TestSamples(t *testing.T) {
	for _, o := range op.All() {
		for _, s := range o.Samples {
			t.Run(o.Name+"/"+s.Name, func(t *testing.T) { backendtest.Constructs(t, o, s, ref.Backend{}) })
		}
	}
}
