package spec_test

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
)

const tied = `data: opticks
model:
  - Embedding: {name: tokens, input_dim: classes, output_dim: 8}
  - TransformerBlock: {num_heads: 2, causal: true}
  - Reuse: tokens
  - Softmax
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [bits_per_token, perplexity]}
`

// The vocabulary's size comes from the data, and a layer that is reused shares its weights.
func TestClassesAndReuse(t *testing.T) {
	s, err := spec.Parse([]byte(tied), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for words, n := range map[string]int{"the cat sat on the mat": 10, "abcabcabcabc": 3} {
		set, err := text.Chars("t", words, text.Config{Length: 2, Test: 0.3})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Compile(set.Spec(), 1, train.Threads(1))
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.Net.Describe([]graph.Type{graph.T(dtype.I32, 2)})
		if err != nil {
			t.Fatal(err)
		}
		if l := d.Layers[0]; l.Trainable != int64(8*n) || l.Uses != 2 || l.Class != "Embedding" {
			t.Errorf("%q: %+v", words, l)
		}
		for _, l := range m.Net.Layers() {
			if _, err := nn.LayerOf(l.Class(), l.Name(), l.Config()); err != nil {
				t.Error(err)
			}
		}
	}
	for wrong, want := range map[string]string{
		strings.Replace(tied, "Reuse: tokens", "Reuse: token", 1):               `a.yaml:5: Reuse: no layer before it is named "token"`,
		strings.Replace(tied, "Reuse: tokens", "Reuse: input", 1):               `no layer before it is named "input"`,
		strings.Replace(tied, "Reuse: tokens", "Reuse:", 1):                     "Reuse takes the name",
		strings.Replace(tied, "output_dim: 8", "output_dim: clases", 1):         "output_dim",
		strings.Replace(tied, "input_dim: classes", "input_dims: classes", 1):   "input_dim",
		strings.Replace(tied, "num_heads: 2", "num_heads: classes, nope: 1", 1): "nope",
	} {
		if _, err := spec.Parse([]byte(wrong), "a.yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

// Layers may take any of the data's inputs by name; a name that neither a layer nor an input has is an error with its line.
func TestInputsByName(t *testing.T) {
	text := `data: x
model:
  - GRU: {units: 3, inputs: [series, length]}
  - Dense: {units: classes, activation: softmax}
compile: {optimizer: adam, loss: sparse_categorical_crossentropy}
`
	d := data.Spec{
		Inputs:  []data.Field{{Name: "series", Shape: shape.Of(5, 2), DType: dtype.F32}, {Name: "length", Shape: shape.Of(), DType: dtype.I32}},
		Targets: []data.Field{{Name: "y", Shape: shape.Of(), DType: dtype.I32}}, Classes: 2,
	}
	s, err := spec.Parse([]byte(text), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compile(d, 1); err != nil {
		t.Error(err)
	}
	if s, err = spec.Parse([]byte(strings.Replace(text, "length]", "lengths]", 1)), "a.yaml"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compile(d, 1); err == nil || !strings.Contains(err.Error(), `a.yaml:3: layer GRU takes "lengths"`) {
		t.Error(err)
	}
}

// A specification says which layers the backward pass computes again.
func TestRecompute(t *testing.T) {
	text := func(what string) []byte {
		return []byte("data: opticks?length=8\nmodel:\n  - Embedding: {input_dim: classes, output_dim: 8}\n  - TransformerBlock: {name: block1, num_heads: 2, causal: true}\n" +
			"  - Dense: {units: classes, activation: softmax}\ncompile: {optimizer: adam, loss: sparse_categorical_crossentropy}\nfit: {recompute: " + what + "}\n")
	}
	set, err := catalog.Open("opticks?length=8")
	if err != nil {
		t.Fatal(err)
	}
	for what, want := range map[string]bool{"true": true, "false": false, "[block1]": true, "[block*]": true} {
		s, err := spec.Parse(text(what), "f")
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Compile(set.Spec(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if m.Recomputes() != want {
			t.Errorf("recompute: %s: the model computes again: %v", what, m.Recomputes())
		}
	}
	if _, err := spec.Parse(text("sometimes"), "f"); err == nil || !strings.Contains(err.Error(), "f:7") || !strings.Contains(err.Error(), "recompute") {
		t.Errorf("error %v", err)
	}
	s, err := spec.Parse(text("[head]"), "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Compile(set.Spec(), 1); err == nil || !strings.Contains(err.Error(), `no layer matches "head"`) {
		t.Errorf("error %v", err)
	}
}
