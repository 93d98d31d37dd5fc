package spec_test

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/labelled"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
)

// sentences is a small set of texts in two classes.
func sentences(t *testing.T) *data.Set {
	t.Helper()
	texts := []labelled.Example{{Text: "good day", Class: "a"}, {Text: "bad night", Class: "b"}, {Text: "good good", Class: "a"}}
	k, err := labelled.Train(texts, "wordpiece:40")
	if err != nil {
		t.Fatal(err)
	}
	set, err := labelled.New("x", texts, texts, labelled.Config{Tokenizer: k, Length: 8})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const encoder = `data: x
model:
  - Embedding: {input_dim: 40, output_dim: 8, name: words, inputs: [tokens]}
  - TransformerBlock: {num_heads: 2, name: block, inputs: [words, length]}
  - GlobalAveragePooling1D: {name: pooled, inputs: [block, length]}
  - Dense: {units: classes, activation: softmax, name: old_head}
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
`

const onTop = `data: x
model:
  - Backbone: {from: FILE, until: pooled, adapters: 2}
  - Dense: {units: classes, activation: softmax, name: head}
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
transfer: {freeze: ["*"], unfreeze: [head, "*/adapter/*"], thaw: {2: [block/feed_forward]}, rates: {head: 10}}
`

func TestBackbone(t *testing.T) {
	set := sentences(t)
	s, err := spec.Parse([]byte(encoder), "a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Compile(set.Spec(), 1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "m.safetensors")
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
	parse := func(text string) *spec.Spec {
		t.Helper()
		s, err := spec.Parse([]byte(strings.ReplaceAll(text, "FILE", file)), "b.yaml")
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s = parse(onTop)
	like, err := s.Like()
	if err != nil || string(like.Tokenizer) != string(set.Spec().Tokenizer) {
		t.Errorf("the data should be like %+v, %v", like, err)
	}
	top, err := s.Compile(set.Spec(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range m.Params() {
		old, err := m.State().Get(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := top.State().Get(p.Name)
		if strings.HasPrefix(p.Name, "old_head") {
			if err == nil {
				t.Error("the old head is still there")
			}
			continue
		}
		if err != nil || !slices.Equal(old.Bytes(), got.Bytes()) {
			t.Errorf("%s is not that of the backbone: %v", p.Name, err)
		}
	}
	if !top.Frozen("words/embeddings") || top.Frozen("block/attention/adapter/up/kernel") || top.Frozen("block/feed_forward/hidden/kernel") {
		t.Error("the wrong parameters are frozen")
	}
	if !slices.Contains(s.Taken, "words/embeddings") || !slices.Contains(s.Left, "head/kernel") {
		t.Errorf("taken %v, left %v", s.Taken, s.Left)
	}
	// With fresh, its layers begin anew.
	s = parse(strings.NewReplacer("adapters: 2", "fresh: true", `transfer: {freeze: ["*"], unfreeze: [head, "*/adapter/*"], thaw: {2: [block/feed_forward]}, rates: {head: 10}}`, "").Replace(onTop))
	anew, err := s.Compile(set.Spec(), 1, train.Seed(5))
	if err != nil {
		t.Fatal(err)
	}
	a, err := anew.State().Get("words/embeddings")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := m.State().Get("words/embeddings"); err != nil || slices.Equal(a.Bytes(), b.Bytes()) || anew.Frozen("words/embeddings") || len(s.Taken) != 0 {
		t.Errorf("a fresh backbone has the trained weights, or took over %v (%v)", s.Taken, err)
	}
	few, _, err := quant.Weights(context.Background(), m, nil, quant.WeightOptions{Bits: 8})
	if err != nil {
		t.Fatal(err)
	}
	bytes := filepath.Join(t.TempDir(), "few.safetensors")
	if err := few.Save(bytes); err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{
		"b.yaml:3: Backbone: fresh: " + bytes + " keeps ":                                      strings.NewReplacer("FILE", bytes, "adapters: 2", "fresh: true").Replace(onTop),
		`b.yaml:3: Backbone: nn: model "model": unknown layer "poold"; did you mean "pooled"?`: strings.Replace(onTop, "until: pooled", "until: poold", 1),
		"b.yaml:3: Backbone: checkpoint":                                                       strings.Replace(onTop, "FILE", filepath.Join(t.TempDir(), "no.safetensors"), 1),
	} {
		_, err := parse(text).Compile(set.Spec(), 1)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
	for want, text := range map[string]string{
		"b.yaml:3: Backbone takes the trained model": strings.Replace(onTop, "from: FILE, ", "", 1),
		"adapters -1 must not be negative":           strings.Replace(onTop, "adapters: 2", "adapters: -1", 1),
		`Backbone has no key "form"`:                 strings.Replace(onTop, "from:", "form:", 1),
		"has two":                                    strings.Replace(onTop, "  - Dense", "  - Backbone: x\n  - Dense", 1),
		"unfreeze and thaw are exceptions to freeze": strings.Replace(onTop, `freeze: ["*"], `, "", 1),
	} {
		if _, err := spec.Parse([]byte(text), "b.yaml"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
}
