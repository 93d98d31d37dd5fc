package structure

import (
	"slices"

	"github.com/jouleml/joule/nn"
)

// through are the classes of layers that treat each feature by itself.
var through = []string{"ReLU", "LeakyReLU", "Activation", "Dropout", "Rescaling", "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
	"GlobalAveragePooling1D", "GlobalAveragePooling2D", "ZeroPadding2D", "UpSampling2D", "RepeatVector"}

// on are the features of what a layer gives, and what that says about those that it takes.
func (a *analysis) on(e *entry, in [][]int) []int {
	width := 1
	if len(e.out) > 0 {
		width = e.out[len(e.out)-1]
	}
	opaque := func(why string) []int {
		a.fix(why, in...)
		out := a.fresh(e.Name, width)
		a.fix(why, out)
		return out
	}
	if len(e.Formats) > 0 {
		return opaque("it has weights of another format than floats; narrow the model before that")
	}
	out := []int(nil)
	switch e.Class {
	case "Dense", "Conv1D", "Conv2D", "PatchEmbedding":
		if e.set.Groups > 1 {
			return opaque("its channels are cut into groups")
		}
		a.bind("kernel", -2, taken, in[0])
		out = a.outputs("kernel", -1, e.Name)
		a.bind("bias", 0, offset, out)
		a.bind("class_token", 1, offset, out)
	case "Conv2DTranspose":
		a.bind("kernel", 3, taken, in[0])
		out = a.outputs("kernel", 2, e.Name)
		a.bind("bias", 0, offset, out)
	case "DepthwiseConv2D":
		a.bind("kernel", 2, scaleOf, in[0])
		for _, x := range in[0] {
			out = append(out, slices.Repeat([]int{x}, max(1, e.set.Multiplier))...)
		}
		a.bind("bias", 0, offset, out)
	case "BatchNormalization":
		out = in[0]
		a.bind("gamma", 0, scale, out)
		for _, p := range []string{"beta", "moving_mean", "moving_variance"} {
			a.bind(p, 0, offset, out)
		}
		a.pass(out)
	case "PositionEmbedding":
		out = in[0]
		a.bind("embeddings", 1, offset, out)
	case "Embedding":
		if e.in[0].DType.IsFloat() { // applied again, for scores
			a.bind("embeddings", 1, taken, in[0])
			out = a.fresh(e.Name, width)
			a.fix("they are scores of an embedding's numbers", out)
			return out
		}
		out = a.outputs("embeddings", 1, e.Name)
	case "SimpleRNN", "LSTM", "GRU":
		return a.recurrent(e, in, width)
	case "MultiHeadAttention":
		a.heads(e, "")
		a.fix("attention gives the width that it takes", in...)
		out = a.fresh(e.Name, width)
		a.fix("attention gives the width that it takes", out)
		return out
	case "TransformerBlock":
		return a.block(e, in, width)
	case "Add", "Multiply", "Average", "Maximum", "Minimum":
		for _, v := range in[1:] {
			a.join(in[0], v)
		}
		if len(in[0]) != width {
			return opaque("its operands have several widths")
		}
		return a.pass(in[0])
	case "Concatenate":
		if ax := e.set.Axis; ax == -1 || ax == len(e.out) {
			for _, v := range in {
				out = append(out, v...)
			}
		} else {
			for _, v := range in[1:] {
				a.join(in[0], v)
			}
			out = in[0]
		}
		return a.pass(out)
	case "Flatten", "Reshape":
		last := e.in[0].Shape[len(e.in[0].Shape)-1]
		switch {
		case len(e.in[0].Shape) == 1:
			return opaque("it makes features of examples")
		case width == last:
			return in[0]
		case len(e.out) == 1 && last > 0:
			return slices.Repeat(in[0], width/last)
		}
		return opaque(e.Class + " puts features among positions")
	default:
		if !slices.Contains(through, e.Class) {
			return opaque("a " + e.Class + " looks at all features together")
		}
		out = a.pass(in[0])
	}
	if act := e.set.Activation; act == nn.Softmax || act == nn.LogSoftmax {
		a.fix("a softmax looks at all of them together", out)
	}
	return out
}

// scaleOf is the role of depthwise filters: they go along with the channels, whose importance is told by what makes them and what takes them.
const scaleOf = offset

// recurrent is a layer with a state: its units are columns of each gate, rows of the kernel between states, and of its first states if it is given some.
func (a *analysis) recurrent(e *entry, in [][]int, width int) []int {
	a.bind("kernel", 0, taken, in[0])
	k := bound{e.Name + "/recurrent_kernel", 0}
	if a.bounds[k] == nil {
		a.bounds[k], a.roles[k] = a.fresh(e.Name, width), taken
		a.order = append(a.order, k)
	}
	out := a.bounds[k]
	gates := slices.Repeat(out, a.shapes[e.Name+"/recurrent_kernel"][1]/width)
	a.bind("kernel", 1, made, gates)
	a.bind("recurrent_kernel", 1, made, gates)
	a.bind("bias", -1, offset, gates)
	for i, v := range in[1:] {
		if e.in[i+1].DType.IsFloat() {
			a.join(out, v)
		}
	}
	return out
}

// heads are those of an attention; with grouped keys a unit is a head of keys with all heads of queries that look at it. Several attentions of one layer have the same number of heads.
func (a *analysis) heads(e *entry, part string) {
	q := a.shapes[e.Name+"/"+part+"query/kernel"]
	if q == nil {
		return
	}
	name := e.Name + ":heads"
	groups := e.set.KVHeads
	if groups == 0 {
		groups = e.set.Heads
	}
	units := a.outputs(part+"key/kernel", 1, name)
	var queries []int
	for _, u := range units {
		queries = append(queries, slices.Repeat([]int{u}, e.set.Heads/groups)...)
	}
	a.bind(part+"query/kernel", 1, made, queries)
	a.bind(part+"query/bias", 0, offset, queries)
	a.bind(part+"key/bias", 0, offset, units)
	a.bind(part+"value/kernel", 1, made, units)
	a.bind(part+"value/bias", 0, offset, units)
	a.bind(part+"attention_output/kernel", 0, taken, queries)
	if e.set.ALiBi {
		a.fix("ALiBi gives each head a slope by its number", units)
	}
}

// block is a Transformer block: its heads and feed-forward units can go, its width stays.
func (a *analysis) block(e *entry, in [][]int, width int) []int {
	a.heads(e, "attention/")
	if a.shapes[e.Name+"/cross_attention/query/kernel"] != nil {
		a.heads(e, "cross_attention/")
		a.join(a.bounds[bound{e.Name + "/attention/key/kernel", 1}], a.bounds[bound{e.Name + "/cross_attention/key/kernel", 1}])
	}
	hidden := a.outputs("feed_forward/hidden/kernel", 1, e.Name+":hidden")
	a.bind("feed_forward/hidden/bias", 0, offset, hidden)
	a.bind("feed_forward/gate/kernel", 1, made, hidden)
	a.bind("feed_forward/gate/bias", 0, offset, hidden)
	a.bind("feed_forward/output/kernel", 0, taken, hidden)
	const why = "the width of Transformer blocks stays: their normalisations look at all features together"
	a.fix(why, in...)
	out := a.fresh(e.Name, width)
	a.fix(why, out)
	return out
}
