package transfer_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// golden is what another program says about texts; testdata/minilm.py has made it.
type golden struct {
	Texts []struct {
		Text      string
		Tokens    []int32
		Embedding []float64
	}
}

// minilm is the folder of the real model, if it is here.
func minilm(t testing.TB) string {
	i, err := catalog.FindModel("all-minilm-l6-v2")
	if err != nil {
		t.Fatal(err)
	}
	if i.Where == "" {
		t.Skip("the model is not here: joule data get all-minilm-l6-v2")
	}
	return i.Where
}

// The embeddings of a real BERT are those that ONNX Runtime computes, alone and in a batch of texts of different lengths.
func TestMiniLM(t *testing.T) {
	m, err := transfer.Open(minilm(t), train.Fixed())
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	b, err := os.ReadFile("testdata/minilm.json")
	if err == nil {
		err = json.Unmarshal(b, &g)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := text.Parse(m.Spec.Tokenizer)
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, s := range g.Texts {
		longest = max(longest, len(s.Tokens))
	}
	x, n := tensor.New(dtype.I32, len(g.Texts), longest), tensor.New(dtype.I32, len(g.Texts))
	worst := 0.0
	compare := func(what string, got []float32, want []float64) {
		for i, v := range got {
			if d := math.Abs(float64(v) - want[i]); !(d < 2e-6) {
				t.Fatalf("%s: element %d is %v, want %v", what, i, v, want[i])
			} else {
				worst = max(worst, d)
			}
		}
	}
	for i, s := range g.Texts {
		ids, err := k.FrameShort(s.Text, 256)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(ids) != fmt.Sprint(s.Tokens) {
			t.Fatalf("%q: tokens %v, want %v", s.Text, ids, s.Tokens)
		}
		copy(x.I32()[i*longest:], ids)
		n.I32()[i] = int32(len(ids))
		y, err := m.PredictBatch(tensor.Of(ids, 1, len(ids)), tensor.Of([]int32{int32(len(ids))}, 1))
		if err != nil {
			t.Fatal(err)
		}
		compare(s.Text, y.F32(), s.Embedding)
	}
	y, err := m.PredictBatch(x, n)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range g.Texts {
		compare("in a batch: "+s.Text, y.Slice(i, i+1).F32(), s.Embedding)
	}
	t.Logf("greatest difference %.2g", worst)
}

// tiny is a BERT of random weights, in a folder as Hugging Face writes it.
type tiny struct {
	config map[string]any
	w      map[string]*tensor.Tensor
	other  map[string]string // more files
}

const tokenizerJSON = `{"version":"1.0","added_tokens":[],"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}}],
"pair":[{"SpecialToken":{"id":"[CLS]","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"[SEP]","type_id":0}},{"Sequence":{"id":"B","type_id":1}},{"SpecialToken":{"id":"[SEP]","type_id":1}}],
"special_tokens":{"[CLS]":{"id":"[CLS]","ids":[1],"tokens":["[CLS]"]},"[SEP]":{"id":"[SEP]","ids":[2],"tokens":["[SEP]"]}}},
"decoder":null,"model":{"type":"WordLevel","vocab":{"[PAD]":0,"[CLS]":1,"[SEP]":2,"[UNK]":3,"a":4,"b":5,"c":6},"unk_token":"[UNK]"}}`

func newTiny() *tiny {
	const h, inner, vocab, pos = 8, 12, 7, 10
	t := &tiny{w: map[string]*tensor.Tensor{}, other: map[string]string{}, config: map[string]any{"model_type": "bert", "hidden_size": h, "num_hidden_layers": 2, "num_attention_heads": 2,
		"intermediate_size": inner, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "max_position_embeddings": pos, "type_vocab_size": 2, "vocab_size": vocab, "hidden_dropout_prob": 0.1}}
	r := rand.New(rand.NewPCG(1, 2))
	put := func(name string, dims ...int) {
		v := tensor.New(dtype.F32, dims...)
		for i := range v.F32() {
			v.F32()[i] = float32(r.NormFloat64() * 0.4)
		}
		t.w[name] = v
	}
	put("embeddings.word_embeddings.weight", vocab, h)
	put("embeddings.position_embeddings.weight", pos, h)
	put("embeddings.token_type_embeddings.weight", 2, h)
	norm := func(name string) { put(name+".LayerNorm.weight", h); put(name+".LayerNorm.bias", h) }
	norm("embeddings")
	dense := func(name string, out, in int) { put(name+".weight", out, in); put(name+".bias", out) }
	for i := range 2 {
		l := fmt.Sprintf("encoder.layer.%d.", i)
		for _, n := range []string{"query", "key", "value"} {
			dense(l+"attention.self."+n, h, h)
		}
		dense(l+"attention.output.dense", h, h)
		norm(l + "attention.output")
		dense(l+"intermediate.dense", inner, h)
		dense(l+"output.dense", h, inner)
		norm(l + "output")
	}
	dense("pooler.dense", h, h)
	return t
}

func (b *tiny) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var all []safetensors.Named
	for n, v := range b.w {
		all = append(all, safetensors.Named{Name: n, Value: v})
	}
	c, err := json.Marshal(b.config)
	if err == nil {
		err = safetensors.WriteFile(filepath.Join(dir, "model.safetensors"), all, nil)
	}
	files := map[string]string{"config.json": string(c), "tokenizer.json": tokenizerJSON}
	for n, s := range b.other {
		files[n] = s
	}
	for n, s := range files {
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, n)), 0o777)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, n), []byte(s), 0o666)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// encode is the whole encoder in float64, written down from the definitions (arXiv:1810.04805, arXiv:1706.03762): states [len(ids)][8].
func (b *tiny) encode(ids []int32) [][]float64 {
	at := func(name string, i int) float64 { return float64(b.w[name].F32()[i]) }
	const h, heads, dim, inner = 8, 2, 4, 12
	norm := func(name string, x []float64) []float64 {
		mean, sq := 0.0, 0.0
		for _, v := range x {
			mean += v / h
		}
		for _, v := range x {
			sq += (v - mean) * (v - mean) / h
		}
		out := make([]float64, h)
		for i, v := range x {
			out[i] = (v-mean)/math.Sqrt(sq+1e-12)*at(name+".LayerNorm.weight", i) + at(name+".LayerNorm.bias", i)
		}
		return out
	}
	dense := func(name string, x []float64, n int) []float64 {
		out := make([]float64, n)
		for i := range out {
			out[i] = at(name+".bias", i)
			for j, v := range x {
				out[i] += v * at(name+".weight", i*len(x)+j)
			}
		}
		return out
	}
	sum := func(a, b []float64) []float64 {
		out := make([]float64, len(a))
		for i := range a {
			out[i] = a[i] + b[i]
		}
		return out
	}
	x := make([][]float64, len(ids))
	for p, id := range ids {
		v := make([]float64, h)
		for i := range v {
			v[i] = at("embeddings.word_embeddings.weight", int(id)*h+i) + at("embeddings.position_embeddings.weight", p*h+i) + at("embeddings.token_type_embeddings.weight", i)
		}
		x[p] = norm("embeddings", v)
	}
	for l := range 2 {
		n := fmt.Sprintf("encoder.layer.%d.", l)
		var q, k, v [][]float64
		for _, s := range x {
			q, k, v = append(q, dense(n+"attention.self.query", s, h)), append(k, dense(n+"attention.self.key", s, h)), append(v, dense(n+"attention.self.value", s, h))
		}
		next := make([][]float64, len(x))
		for p := range x {
			mixed := make([]float64, h)
			for hd := range heads {
				scores, total := make([]float64, len(x)), 0.0
				for o := range x {
					for d := range dim {
						scores[o] += q[p][hd*dim+d] * k[o][hd*dim+d] / math.Sqrt(dim)
					}
					scores[o] = math.Exp(scores[o])
					total += scores[o]
				}
				for o := range x {
					for d := range dim {
						mixed[hd*dim+d] += scores[o] / total * v[o][hd*dim+d]
					}
				}
			}
			a := norm(n+"attention.output", sum(x[p], dense(n+"attention.output.dense", mixed, h)))
			hidden := dense(n+"intermediate.dense", a, inner)
			for i, z := range hidden {
				hidden[i] = z * 0.5 * (1 + math.Erf(z/math.Sqrt2))
			}
			next[p] = norm(n+"output", sum(a, dense(n+"output.dense", hidden, h)))
		}
		x = next
	}
	return x
}

func unit(v []float64) []float64 {
	s := 0.0
	for _, x := range v {
		s += x * x
	}
	out := make([]float64, len(v))
	for i := range v {
		out[i] = v[i] / math.Sqrt(s)
	}
	return out
}

// Weights land where they belong: what the model gives is what the definitions give; both poolings, and files whose names begin with bert.
func TestBERT(t *testing.T) {
	for _, first := range []bool{false, true} {
		b := newTiny()
		if first {
			b.other["1_Pooling/config.json"] = `{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}`
			b.other["sentence_bert_config.json"] = `{"max_seq_length": 6}`
		}
		dir := b.write(t)
		if first { // the same under other names
			old := b.w
			b.w = map[string]*tensor.Tensor{}
			for n, v := range old {
				n = strings.NewReplacer("LayerNorm.weight", "LayerNorm.gamma", "LayerNorm.bias", "LayerNorm.beta").Replace(n)
				b.w["bert."+n] = v
			}
			renamed := b.write(t)
			b = newTiny()
			if err := os.Rename(filepath.Join(renamed, "model.safetensors"), filepath.Join(dir, "model.safetensors")); err != nil {
				t.Fatal(err)
			}
		}
		m, err := transfer.Open(dir, train.Fixed())
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{false: 10, true: 6}[first]; m.Spec.Inputs[0].Shape[0] != want {
			t.Errorf("texts of %v tokens, want %d", m.Spec.Inputs[0].Shape, want)
		}
		for _, ids := range [][]int32{{1, 4, 2}, {1, 6, 5, 4, 2}} {
			states := b.encode(ids)
			want := make([]float64, 8)
			for p, s := range states {
				for i, v := range s {
					if !first {
						want[i] += v
					} else if p == 0 {
						want[i] = v
					}
				}
			}
			want = unit(want)
			padded := append(append([]int32{}, ids...), 0)
			y, err := m.PredictBatch(tensor.Of(padded, 1, len(padded)), tensor.Of([]int32{int32(len(ids))}, 1))
			if err != nil {
				t.Fatal(err)
			}
			for i, v := range y.F32() {
				if math.Abs(float64(v)-want[i]) > 1e-5 {
					t.Fatalf("tokens %v: %v, want %v", ids, y.F32(), want)
				}
			}
		}
		s, err := transfer.State(dir)
		if err != nil {
			t.Fatal(err)
		}
		if p := s.Tensor("pooler/kernel"); p == nil || p.At(1) != newTiny().w["pooler.dense.weight"].At(8) {
			t.Error("the pooler is not there, or not transposed")
		}
		if _, err := m.Fit(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "prediction alone") {
			t.Errorf("a fixed model can be trained: %v", err)
		}
	}
}

func TestBERTMistakes(t *testing.T) {
	for want, spoil := range map[string]func(b *tiny){
		"model_type \"gpt2\": only bert is known":               func(b *tiny) { b.config["model_type"] = "gpt2" },
		"hidden_size 8 is no multiple of num_attention_heads 3": func(b *tiny) { b.config["num_attention_heads"] = 3 },
		"num_hidden_layers -1 must be from 1":                   func(b *tiny) { b.config["num_hidden_layers"] = -1 },
		"vocab_size 1000000000 must be from 1":                  func(b *tiny) { b.config["vocab_size"] = 1000000000 },
		"hidden_act \"swish2\"":                                 func(b *tiny) { b.config["hidden_act"] = "swish2" },
		"position_embedding_type \"relative_key\"":              func(b *tiny) { b.config["position_embedding_type"] = "relative_key" },
		"layer_norm_eps 0 must be a positive number":            func(b *tiny) { delete(b.config, "layer_norm_eps") },
		"only encoders": func(b *tiny) { b.config["is_decoder"] = true },
		"hidden_dropout_prob 1.5 is not in [0, 1)":                     func(b *tiny) { b.config["hidden_dropout_prob"] = 1.5 },
		"has no tensor encoder.layer.1.output.dense.bias":              func(b *tiny) { delete(b.w, "encoder.layer.1.output.dense.bias") },
		"is [7 8], config.json asks for [9 8]":                         func(b *tiny) { b.config["vocab_size"] = 9 },
		"the tokenizer has 7 tokens, the model knows 5":                func(b *tiny) { b.config["vocab_size"] = 5 },
		"only the mean of all tokens or the first token alone":         func(b *tiny) { b.other["1_Pooling/config.json"] = `{}` },
		"sentence_bert_config.json: invalid character":                 func(b *tiny) { b.other["sentence_bert_config.json"] = `x` },
		"tensor pooler.dense.bias is i32, not floats":                  func(b *tiny) { b.w["pooler.dense.bias"] = tensor.New(dtype.I32, 8) },
		"config.json asks for [8]":                                     func(b *tiny) { b.w["embeddings.LayerNorm.bias"] = tensor.New(dtype.F32, 4, 2) },
		"tokenizer.json: text: tokenizer.json: unexpected end of JSON": func(b *tiny) { b.other["tokenizer.json"] = `{` },
	} {
		b := newTiny()
		spoil(b)
		if _, err := transfer.Open(b.write(t), train.Fixed()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v\nwant %s", err, want)
		}
	}
	// A file that is cut off, and no model at all.
	dir := newTiny().write(t)
	path := filepath.Join(dir, "model.safetensors")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{raw[:len(raw)-9], raw[:5], binary.LittleEndian.AppendUint64(nil, 1<<40)} {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := transfer.Open(dir); err == nil {
			t.Error("a damaged file is read")
		}
	}
	if _, err := transfer.Open(filepath.Join(dir, "nothing")); err == nil {
		t.Error("no file is read")
	}
}
