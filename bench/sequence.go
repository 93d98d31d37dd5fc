package bench

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/kernel/attention"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// sequences lists Transformers and attention alone.
func sequences() []work {
	out := []work{gpt(4, 256, 4, 128, 16, 1024)}
	half := gpt(4, 256, 4, 128, 16, 1024, train.DTypePolicy(nn.MixedBFloat16))
	half.name, half.group, half.request["bf16"] = half.name+" bf16", "", true
	memory := gpt(4, 256, 4, 128, 16, 1024)
	memory.name, memory.group, memory.measure = "scale "+memory.name, scaling, alone
	out = append(out, half, memory)
	for _, b := range []int{1, 8} {
		for _, t := range []int{16, 128, 512} {
			out = append(out, encoder(6, 384, 12, t, b))
		}
	}
	for _, causal := range []bool{true, false} {
		for _, t := range []int{512, 4096} {
			out = append(out, attentions(t, 8, 64, causal)...)
		}
	}
	return out
}

// tokens are the numbers 0, 1, 2, … of a vocabulary, over and over.
func tokens(to []int32, vocabulary int) {
	for i := range to {
		to[i] = int32(i * 7 % vocabulary)
	}
}

// gpt is a train step, with rate 0, of a language model: learned positions, pre-norm blocks with GELU, a last normalisation and a head of its own.
func gpt(layers, width, heads, time, batch, vocabulary int, on ...train.Option) work {
	w := work{name: fmt.Sprintf("gpt %dx%d T %d batch %d train", layers, width, time, batch), group: "transformer",
		request: Request{"work": "gpt", "layers": layers, "width": width, "heads": heads, "time": time, "batch": batch, "vocabulary": vocabulary}}
	perToken := float64(layers)*24*float64(width*width) + 2*float64(width*vocabulary)
	pairs := float64(layers) * float64(batch) * float64(time) * float64(time+1) / 2
	w.flops = 3*perToken*float64(batch*time) + pairs*7*2*float64(width) // products of attention: 2 forward, 5 backward
	w.setup = func(threads int) (func() error, func(), error) {
		field := []data.Field{{Name: "tokens", Shape: shape.Of(time), DType: dtype.I32}}
		spec := data.Spec{Inputs: field, Targets: field, Classes: vocabulary}
		ls := []*nn.Layer{nn.Embedding(vocabulary, width), nn.PositionEmbedding(time)}
		for range layers {
			ls = append(ls, nn.TransformerBlock(heads, nn.CausalAttention()))
		}
		ls = append(ls, nn.LayerNormalization(nn.Epsilon(1e-5)), nn.Dense(vocabulary, nn.Softmax))
		m, err := train.Compile(nn.Sequential(ls...), spec, optim.Adam(), train.SparseCategoricalCrossentropy, append(on, train.Threads(threads))...)
		if err != nil {
			return nil, nil, err
		}
		x, y := spec.Tensors(batch)
		tokens(x[0].I32(), vocabulary)
		tokens(y[0].I32(), vocabulary)
		return func() error { _, err := m.StepTogether(x, y, 0); return err }, func() {}, nil
	}
	return w
}

// encoder is the prediction of post-norm blocks with GELU on vectors, the shape of a small BERT without its embedding.
func encoder(layers, width, heads, time, batch int) work {
	w := work{name: fmt.Sprintf("encoder %dx%d T %d batch %d", layers, width, time, batch), group: "transformer",
		request: Request{"work": "encoder", "layers": layers, "width": width, "heads": heads, "time": time, "batch": batch}}
	w.flops = float64(layers*batch*time) * (24*float64(width*width) + 4*float64(time*width))
	w.setup = func(threads int) (func() error, func(), error) {
		spec := data.Spec{
			Inputs:  []data.Field{{Name: "x", Shape: shape.Of(time, width), DType: dtype.F32}},
			Targets: []data.Field{{Name: "y", Shape: shape.Of(time, width), DType: dtype.F32}},
		}
		var ls []*nn.Layer
		for range layers {
			ls = append(ls, nn.TransformerBlock(heads, nn.PostNorm()))
		}
		m, err := train.Compile(nn.Sequential(ls...), spec, optim.SGD(0, false), train.MeanSquaredError, train.Threads(threads))
		if err != nil {
			return nil, nil, err
		}
		x, _ := spec.Tensors(batch)
		random(x[0])
		return func() error { _, err := m.PredictBatch(x...); return err }, func() {}, nil
	}
	return w
}

// attentions are attention alone, one example: forward, and its gradient (the peer's is measured with the forward pass that it needs, and so is ours).
func attentions(time, heads, dim int, causal bool) []work {
	kind, pairs := "", float64(time)*float64(time)
	if causal {
		kind, pairs = "causal ", float64(time)*float64(time+1)/2
	}
	s := attention.Spec{Batch: 1, Queries: time, Keys: time, Heads: heads, Groups: heads, Dim: dim, Scale: 1 / math.Sqrt(float64(dim)), Causal: causal}
	product := 2 * float64(heads*dim) * pairs
	var out []work
	for _, backward := range []bool{false, true} {
		w := work{name: fmt.Sprintf("attention %sT %d forward", kind, time), group: "attention", flops: 2 * product,
			request: Request{"work": "attention", "time": time, "heads": heads, "dim": dim, "causal": causal, "backward": backward}}
		if backward {
			w.name, w.flops = fmt.Sprintf("attention %sT %d forward and backward", kind, time), 7*product
		}
		w.setup = func(threads int) (func() error, func(), error) {
			n := time * heads * dim
			q, k, v, dy, y, lse := randoms(n), randoms(n), randoms(n), randoms(n), make([]float32, n), make([]float32, time*heads)
			dq, dk, dv, delta := make([]float32, n), make([]float32, n), make([]float32, n), make([]float32, time*heads)
			f, b, pool := attention.New(s), attention.New(s), par.New(threads)
			return func() error {
				f.Run(pool, y, lse, q, k, v, nil, nil)
				if backward {
					for i := range delta {
						sum := float32(0)
						for j, d := range dy[i*dim : (i+1)*dim] {
							sum += d * y[i*dim+j]
						}
						delta[i] = sum
					}
					b.Backward(pool, dq, dk, dv, q, k, v, nil, nil, lse, delta, dy)
				}
				return nil
			}, pool.Close, nil
		}
		out = append(out, w)
	}
	return out
}
