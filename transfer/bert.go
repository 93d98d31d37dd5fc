// Package transfer begins models at trained ones: it opens what other programs have trained, computes the features of frozen layers once, and thaws layers one after another.
//
// What is chosen by patterns (weights taken over, parameters that stay, learning rates) is in package train, adapters in nn, low-rank changes in compress/lora.
package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
)

// The layers of a BERT, by which parts of it are named: blocks are block_0, block_1, …
const (
	LayerPooled    = "pooled"    // one vector for a text
	LayerEmbedding = "embedding" // the same, of length 1
	LayerPooler    = "pooler"    // tanh of a dense layer on [CLS], which BERT was trained with
)

// FieldEmbedding is the target of a model that gives vectors for texts.
const FieldEmbedding = "embedding"

// bertConfig is config.json of a BERT.
type bertConfig struct {
	Type      string  `json:"model_type"`
	Hidden    int     `json:"hidden_size"`
	Layers    int     `json:"num_hidden_layers"`
	Heads     int     `json:"num_attention_heads"`
	Inner     int     `json:"intermediate_size"`
	Act       string  `json:"hidden_act"`
	Epsilon   float64 `json:"layer_norm_eps"`
	Positions int     `json:"max_position_embeddings"`
	Types     int     `json:"type_vocab_size"`
	Vocab     int     `json:"vocab_size"`
	Position  string  `json:"position_embedding_type"`
	Dropout   float64 `json:"hidden_dropout_prob"`
	Decoder   bool    `json:"is_decoder"`
}

// activationsOf are the names of activations in config.json.
var activationsOf = map[string]nn.Activation{"gelu": nn.GELU, "gelu_new": nn.GELUTanh, "gelu_pytorch_tanh": nn.GELUTanh, "relu": nn.ReLU, "silu": nn.SiLU}

// maxBERT bounds the sizes in config.json, so that a damaged file does not ask for all memory.
const maxBERT = 1 << 24

func (c *bertConfig) check() error {
	for _, n := range []struct {
		key   string
		value int
	}{{"hidden_size", c.Hidden}, {"num_hidden_layers", c.Layers}, {"num_attention_heads", c.Heads}, {"intermediate_size", c.Inner}, {"max_position_embeddings", c.Positions}, {"vocab_size", c.Vocab}} {
		if n.value < 1 || n.value > maxBERT {
			return fmt.Errorf("%s %d must be from 1 to %d", n.key, n.value, maxBERT)
		}
	}
	_, act := activationsOf[c.Act]
	switch {
	case c.Type != "bert":
		return fmt.Errorf("model_type %q: only bert is known", c.Type)
	case c.Decoder:
		return errors.New("is_decoder: a BERT that writes text is not supported, only encoders")
	case c.Position != "" && c.Position != "absolute":
		return fmt.Errorf("position_embedding_type %q: only absolute is supported", c.Position)
	case !act:
		return fmt.Errorf("hidden_act %q: gelu, gelu_new, gelu_pytorch_tanh, relu and silu are known", c.Act)
	case c.Hidden%c.Heads != 0:
		return fmt.Errorf("hidden_size %d is no multiple of num_attention_heads %d", c.Hidden, c.Heads)
	case c.Layers > 1000:
		return fmt.Errorf("num_hidden_layers %d is more than 1000", c.Layers)
	case !(c.Epsilon > 0) || math.IsInf(c.Epsilon, 0):
		return fmt.Errorf("layer_norm_eps %g must be a positive number", c.Epsilon)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("hidden_dropout_prob %g is not in [0, 1)", c.Dropout)
	}
	return nil
}

// net is the encoder: tokens i32 [length] and their number to a vector. The embedding of the first type of token is part of those of the positions.
func (c *bertConfig) net(length int, firstToken bool) (*nn.Model, error) {
	tokens, count := nn.InputOf("tokens", dtype.I32, length), nn.InputOf("length", dtype.I32)
	x := nn.Embedding(c.Vocab, c.Hidden).Named("word_embeddings").On(tokens)
	x = nn.PositionEmbedding(c.Positions).Named("position_embeddings").On(x)
	x = nn.LayerNormalization(nn.Epsilon(c.Epsilon)).Named("embeddings_norm").On(x)
	for i := range c.Layers {
		b := nn.TransformerBlock(c.Heads, nn.PostNorm(), nn.Hidden(c.Inner), activationsOf[c.Act], nn.BlockDropout(c.Dropout), nn.BlockEpsilon(c.Epsilon))
		x = b.Named(fmt.Sprintf("block_%d", i)).On(x, count)
	}
	if firstToken {
		x = nn.FirstPosition().Named(LayerPooled).On(x)
	} else {
		x = nn.GlobalAveragePool1D().Named(LayerPooled).On(x, count)
	}
	x = nn.UnitNormalization().Named(LayerEmbedding).On(x)
	m, err := nn.Functional([]*nn.Value{tokens, count}, []*nn.Value{x})
	if err == nil {
		m.Name = "bert"
	}
	return m, err
}

// IsBERT reports whether a folder has a config.json, as Hugging Face's do.
func IsBERT(dir string) bool {
	i, err := os.Stat(filepath.Join(dir, "config.json"))
	return err == nil && i.Mode().IsRegular()
}

// BERT reads an encoder that Hugging Face's transformers has written, a folder with config.json, model.safetensors and tokenizer.json, as a model of Joule's: one vector of length 1
// for a text, the mean over its tokens ([CLS] and [SEP] included, as sentence-transformers computes it), or the vector of [CLS] where 1_Pooling/config.json says so. The model is a
// checkpoint.State, which train.FromState compiles and Model.Take takes weights from. Parameters have the names that Joule gives them; "pooler/kernel" and "pooler/bias" are there too where the file has them, for models with a dense layer
// named pooler.
func BERT(dir string) (*checkpoint.State, error) {
	var c bertConfig
	if err := readJSON(filepath.Join(dir, "config.json"), &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("transfer: %s: %w", filepath.Join(dir, "config.json"), err)
	}
	k, err := text.Load(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	if k.Size() > c.Vocab {
		return nil, fmt.Errorf("transfer: %s: the tokenizer has %d tokens, the model knows %d: they do not belong together", dir, k.Size(), c.Vocab)
	}
	tokenizer, err := json.Marshal(k)
	if err != nil {
		return nil, fmt.Errorf("transfer: %s: %w", dir, err)
	}
	length, firstToken := c.Positions, false
	var sentence struct {
		Length int `json:"max_seq_length"`
	}
	if err := readJSON(filepath.Join(dir, "sentence_bert_config.json"), &sentence); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if sentence.Length > 0 {
		length = min(length, sentence.Length)
	}
	var pooling struct {
		First bool `json:"pooling_mode_cls_token"`
		Mean  bool `json:"pooling_mode_mean_tokens"`
	}
	pool := filepath.Join(dir, "1_Pooling", "config.json")
	switch err := readJSON(pool, &pooling); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case pooling.First == pooling.Mean:
		return nil, fmt.Errorf("transfer: %s: only the mean of all tokens or the first token alone can be pooled", pool)
	default:
		firstToken = pooling.First
	}
	net, err := c.net(length, firstToken)
	if err != nil {
		return nil, err
	}
	s := &checkpoint.State{Score: math.NaN(), Sections: map[string]json.RawMessage{}}
	spec := data.Spec{
		Inputs:    []data.Field{{Name: "tokens", Shape: shape.Of(length), DType: dtype.I32}, {Name: "length", Shape: shape.Of(), DType: dtype.I32}},
		Targets:   []data.Field{{Name: FieldEmbedding, Shape: shape.Of(c.Hidden), DType: dtype.F32}},
		Tokenizer: tokenizer,
	}
	for name, v := range map[string]any{checkpoint.SectionModel: net, train.SectionSpec: spec, checkpoint.SectionConfig: train.Config{Optimizer: "adamw", Loss: train.MeanSquaredError.Name, Accumulate: 1}} {
		if s.Sections[name], err = json.Marshal(v); err != nil {
			return nil, fmt.Errorf("transfer: %s: %w", dir, err)
		}
	}
	if s.Tensors, err = c.weights(filepath.Join(dir, "model.safetensors")); err != nil {
		return nil, err
	}
	return s, nil
}

func readJSON(path string, to any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("transfer: %w", err)
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("transfer: %s: %w", path, err)
	}
	return nil
}

// place is where a parameter is in the file, and its shape there and here.
type place struct {
	name, from string
	theirs     []int // of weights [out, in], which are stored transposed here
	ours       []int
	turned     bool
}

// places maps names: the layout of Hugging Face's BertModel.
func (c *bertConfig) places() []place {
	h, dim := c.Hidden, c.Hidden/c.Heads
	norm := func(to, from string) []place {
		return []place{{to + "/gamma", from + ".weight", []int{h}, []int{h}, false}, {to + "/beta", from + ".bias", []int{h}, []int{h}, false}}
	}
	dense := func(to, from string, in, out int, kernel, bias []int) []place {
		return []place{{to + "/kernel", from + ".weight", []int{out, in}, kernel, true}, {to + "/bias", from + ".bias", []int{out}, bias, false}}
	}
	out := []place{
		{"word_embeddings/embeddings", "embeddings.word_embeddings.weight", []int{c.Vocab, h}, []int{c.Vocab, h}, false},
		{"position_embeddings/embeddings", "embeddings.position_embeddings.weight", []int{c.Positions, h}, []int{c.Positions, h}, false},
	}
	out = append(out, norm("embeddings_norm", "embeddings.LayerNorm")...)
	for i := range c.Layers {
		to, from := fmt.Sprintf("block_%d", i), fmt.Sprintf("encoder.layer.%d", i)
		for _, name := range []string{"query", "key", "value"} {
			out = append(out, dense(to+"/attention/"+name, from+".attention.self."+name, h, h, []int{h, c.Heads, dim}, []int{c.Heads, dim})...)
		}
		out = append(out, dense(to+"/attention/attention_output", from+".attention.output.dense", h, h, []int{c.Heads, dim, h}, []int{h})...)
		out = append(out, norm(to+"/attention_norm", from+".attention.output.LayerNorm")...)
		out = append(out, dense(to+"/feed_forward/hidden", from+".intermediate.dense", h, c.Inner, []int{h, c.Inner}, []int{c.Inner})...)
		out = append(out, dense(to+"/feed_forward/output", from+".output.dense", c.Inner, h, []int{c.Inner, h}, []int{h})...)
		out = append(out, norm(to+"/feed_forward_norm", from+".output.LayerNorm")...)
	}
	return out
}

// weights reads the parameters. Names in the file may begin with "bert.", as those of models with heads do, and normalisations may have gamma and beta, as old ones do.
func (c *bertConfig) weights(path string) ([]safetensors.Named, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, fmt.Errorf("transfer: %w", err)
	}
	defer f.Close()
	stored := map[string]safetensors.Info{}
	for _, t := range f.Tensors() {
		name := strings.TrimPrefix(t.Name, "bert.")
		name = strings.NewReplacer("LayerNorm.gamma", "LayerNorm.weight", "LayerNorm.beta", "LayerNorm.bias").Replace(name)
		stored[name] = t
	}
	load := func(p place) (*tensor.Tensor, error) {
		t, ok := stored[p.from]
		if !ok {
			return nil, fmt.Errorf("transfer: %s has no tensor %s, which %s comes from: it is no BERT of the layout of Hugging Face's BertModel", path, p.from, p.name)
		}
		if !t.Shape.Equal(p.theirs) {
			return nil, fmt.Errorf("transfer: %s: tensor %s is %v, config.json asks for %v", path, t.Name, t.Shape, shape.Shape(p.theirs))
		}
		v, err := f.Load(t.Name)
		if err != nil {
			return nil, fmt.Errorf("transfer: %w", err)
		}
		return floats(v, p)
	}
	var out []safetensors.Named
	ps := c.places()
	if _, ok := stored["pooler.dense.weight"]; ok {
		h := c.Hidden
		ps = append(ps, place{LayerPooler + "/kernel", "pooler.dense.weight", []int{h, h}, []int{h, h}, true}, place{LayerPooler + "/bias", "pooler.dense.bias", []int{h}, []int{h}, false})
	}
	for _, p := range ps {
		v, err := load(p)
		if err != nil {
			return nil, err
		}
		if p.name == "position_embeddings/embeddings" && c.Types > 0 { // every token of a single text is of the first type
			types, err := load(place{"position_embeddings/embeddings", "embeddings.token_type_embeddings.weight", []int{c.Types, c.Hidden}, []int{c.Types, c.Hidden}, false})
			if err != nil {
				return nil, err
			}
			for i := range v.F32() {
				v.F32()[i] += types.F32()[i%c.Hidden]
			}
		}
		out = append(out, safetensors.Named{Name: p.name, Value: v})
	}
	return out, nil
}

// floats is a tensor of the file as f32 in the shape that it has here.
func floats(t *tensor.Tensor, p place) (*tensor.Tensor, error) {
	if !t.DType().IsFloat() {
		return nil, fmt.Errorf("transfer: tensor %s is %v, not floats", p.from, t.DType())
	}
	out := tensor.New(dtype.F32, p.ours...)
	to := out.F32()
	if !p.turned {
		for i := range to {
			to[i] = float32(t.At(i))
		}
		return out, nil
	}
	n, k := p.theirs[0], p.theirs[1]
	for i := range n {
		for j := range k {
			to[j*n+i] = float32(t.At(i*k + j))
		}
	}
	return out, nil
}

// State reads a trained model: a file that Joule has written, or a folder that holds a BERT (see BERT).
func State(path string) (*checkpoint.State, error) {
	if IsBERT(path) {
		return BERT(path)
	}
	return checkpoint.Load(path)
}

// Open is the model that State reads, to predict with; with train.Fixed among opts it has no room for an optimizer.
func Open(path string, opts ...train.Option) (*train.Model, error) {
	if !IsBERT(path) {
		return train.Load(path, opts...)
	}
	s, err := State(path)
	if err != nil {
		return nil, err
	}
	m, err := train.FromState(s, opts...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}
