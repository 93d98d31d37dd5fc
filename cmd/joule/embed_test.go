package main

import (
	"math"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/tensor"
)

// tinybert DIR: the weights of a BERT of one layer, 16 wide, beside its config.json and tokenizer.json.
func tinyBERT(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tinybert DIR")
	}
	const h, inner, vocab, positions = 16, 32, 8, 64
	var all []safetensors.Named
	put := func(name string, dims ...int) {
		t := tensor.New(dtype.F32, dims...)
		for i := range t.F32() {
			t.F32()[i] = float32(math.Sin(float64(7*i+len(all)))) / 2
		}
		all = append(all, safetensors.Named{Name: name, Value: t})
	}
	put("embeddings.word_embeddings.weight", vocab, h)
	put("embeddings.position_embeddings.weight", positions, h)
	put("embeddings.token_type_embeddings.weight", 2, h)
	l := "encoder.layer.0."
	for _, n := range []string{"embeddings.", l + "attention.output.", l + "output."} {
		put(n+"LayerNorm.weight", h)
		put(n+"LayerNorm.bias", h)
	}
	for _, n := range []string{"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"} {
		put(l+n+".weight", h, h)
		put(l+n+".bias", h)
	}
	put(l+"intermediate.dense.weight", inner, h)
	put(l+"intermediate.dense.bias", inner)
	put(l+"output.dense.weight", h, inner)
	put(l+"output.dense.bias", h)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o777))
	ts.Check(safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), all, nil))
}
