// Package nn describes models: layers, and how values flow from one to the next.
//
// # Terminology
//
// A Layer is a configuration (so many filters, this activation) and a name; applying it twice shares its parameters. A Value is what flows:
// the model's inputs and the result of each application. A Model is a list of applications from its inputs to its outputs. Nothing is computed
// here: Model.Call adds a model's nodes to a graph, which package train compiles.
//
// Shapes leave out the batch, which is always the first axis. Images are [height, width, channels], sequences [time, features].
// Defaults are those of Keras 3, so that a program can be carried over line by line and its curves laid over each other.
package nn

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/shape"
)

// Layer is a step of a model: a configuration and a name.
type Layer struct {
	class string
	name  string // "" until a model or the user names it
	kind  kind
	site  graph.Site

	formats map[string]Format // of matrices of weights, by the names of their parameters within the layer
}

// kind is the configuration of one class of layer; its fields with JSON names are what a saved model keeps. It never changes once the layer is made.
type kind interface {
	// check says what is wrong with the settings, whatever the layer is applied to.
	check() error
	// call adds the layer's nodes to the graph and gives its result.
	call(c *Call, x []*graph.Node) *graph.Node
}

// classes makes an empty configuration, defaults filled in, for each class name. Files of layers fill it in init.
var classes = map[string]func() kind{}

// Classes lists the names of all layer classes in alphabetical order.
func Classes() []string { return sortedKeys(classes) }

func layer(class string, k kind, opts []Option) *Layer {
	l := &Layer{class: class, kind: k, site: graph.Here()}
	for _, o := range opts {
		o.apply(l)
	}
	return l
}

// Class is the layer's class, such as "Conv2D".
func (l *Layer) Class() string { return l.class }

// Name is the layer's name; "" if it has none yet.
func (l *Layer) Name() string { return l.name }

// Named gives the layer a name, by which its parameters are saved, and returns it.
func (l *Layer) Named(name string) *Layer { l.name = name; return l }

// Config is the layer's configuration as JSON, as Save keeps it and LayerOf reads it.
func (l *Layer) Config() json.RawMessage {
	j, err := json.Marshal(l.kind)
	if err != nil {
		panic(fmt.Sprintf("nn: configuration of %s: %v", l.class, err)) // a bug: configurations are plain data
	}
	return j
}

// On applies the layer to values and gives its result.
func (l *Layer) On(x ...*Value) *Value {
	for i, v := range x {
		if v == nil {
			panic(fmt.Sprintf("nn: operand %d of %s is nil", i, l.class))
		}
	}
	return &Value{layer: l, from: x}
}

// Value is what flows between layers: an input, or the result of applying a layer.
type Value struct {
	layer *Layer   // nil: an input
	from  []*Value // what the layer was applied to
	shape shape.Shape
	dt    dtype.Type
	name  string
}

// Input is a model input of the given shape (without the batch), of f32.
func Input(dims ...int) *Value { return InputOf("", dtype.F32, dims...) }

// InputOf is a named model input of an element type, such as I32 for token numbers.
func InputOf(name string, dt dtype.Type, dims ...int) *Value {
	return &Value{shape: shape.Of(dims...).Clone(), dt: dt, name: name}
}

// Param is a variable of a model.
type Param struct {
	Name      string // "conv2d/kernel"
	Type      graph.Type
	Init      Initializer
	Trainable bool
	Decay     bool // whether weight decay applies: true of kernels, false of biases and norm scales

	// RateFactor multiplies the learning rate; 0 counts as 1.
	RateFactor float64
	// Since names the counter of the parameter's updates, if it is not the optimizer's own: its training has begun later.
	Since string

	// Weights is how many weights it holds, where that is not the number of its elements (two of 4 bits in a byte); 0 otherwise.
	Weights int
}

// Call is one addition of a model's nodes to a graph.
type Call struct {
	G        *graph.Graph
	Training bool // whether dropout drops and batch statistics are used
	// Policy says in which element types is computed; "" is Float32.
	Policy Policy
	// Seed is the i64 [2] state of random layers in training, nil otherwise; each layer draws from a stream of its own.
	Seed *graph.Node

	// Cache, if not nil, makes the call go on with sequences that earlier calls have begun.
	Cache *Cache
	// Carry, if not "", lets stateful layers begin where the call before with the same word has ended; see Stateful.
	Carry string
	// Prefix begins the names of all parameters.
	Prefix string
	// Frozen, if not nil, says which parameters stay as they are. A batch normalisation of which one is frozen uses its moving averages and leaves them.
	Frozen func(param string) bool
	// Wrap, if not nil, gives what layers use in place of a parameter w, such as w times a mask. It may declare parameters of its own with Extra.
	Wrap func(c *Call, p Param, w *graph.Node) *graph.Node
	// Change, if not nil, gives matrices in f32 whose product is added to a matrix of few bits: [K, r] and [r, N] for a change of rank r, none for no change. p is the parameter as it would be as floats, and w gives
	// its values as such. It may declare parameters of its own with Extra.
	Change func(c *Call, p Param, w func() *graph.Node) []*graph.Node
	// Moved, if not nil, takes the new values of moving averages, which otherwise become updates of the graph.
	Moved func(v, value *graph.Node)
	// Mean, if not nil, gives the mean over all ranks of what is a mean over this rank's examples: batch normalisations take their statistics so.
	Mean func(x *graph.Node) *graph.Node
	// Split, if not nil, shares layers out over processes.
	Split *Split
	// Scores are what Model.Call gives in place of the model's output where the last layer is split; see Split.Ends.
	Scores *Scores
	// Operand, if not nil, gives what a layer uses in place of its operand x, such as x rounded as integers will be.
	Operand func(c *Call, l *Layer, i int, x *graph.Node) *graph.Node
	// Tap, if not nil, is shown every layer with its operands.
	Tap func(l *Layer, x []*graph.Node)
	// Attend, if not nil, is shown the probabilities [batch heads time keys] of each attention, which are computed for it alone: they take memory for every pair of positions.
	// part is the layer and what of it attends: "decoder_1/cross_attention".
	Attend func(part string, p *graph.Node)
	// Products, if not nil, is shown the operand [M, K] of every product with a matrix of weights, and the name of its parameter.
	Products func(param string, x *graph.Node)

	layer   *Layer
	role    role    // of the Dense layer being called
	prefix  string  // of the names of parameters: see within
	Params  []Param // every parameter met so far, in order
	known   map[string]*graph.Node
	changes map[string][]*graph.Node // by the names of matrices of few bits: see Change
	streams int                      // of random numbers drawn from Seed so far
	moves   []graph.Assign           // of moving averages: see move
	seen    func(l *Layer, y *graph.Node)
}

// Uniform is random f32 numbers in [0, 1), others at each step and each call of Uniform.
func (c *Call) Uniform(dims ...int) *graph.Node {
	if c.Seed == nil {
		c.Fail("random numbers are needed but the call has no seed")
	}
	c.streams++
	return op.RandomUniform(c.Seed, c.streams, dims...)
}

// maxParam is the number of elements of a parameter above which it must be a mistake: 32 GiB of f32.
const maxParam = 1 << 33

// Param is the layer's parameter of the given name: made at the first call, shared afterwards.
func (c *Call) Param(name string, init Initializer, trainable bool, dims ...int) *graph.Node {
	if c.Split != nil {
		c.Split.used(c.full(name), uncut)
	}
	return c.param(name, init, trainable, dims...)
}

// full is the name of a parameter of the layer within the model.
func (c *Call) full(name string) string { return c.Prefix + c.layer.name + "/" + c.prefix + name }

func (c *Call) param(name string, init Initializer, trainable bool, dims ...int) *graph.Node {
	full := c.full(name)
	if n := c.known[full]; n != nil {
		if !n.Shape().Equal(dims) {
			c.G.Fail(c.layer.class, nil, "layer %q has a %s of shape %v from its first use and would need %v here", c.layer.name, name, n.Shape(), shape.Of(dims...))
		}
		return n
	}
	t := graph.T(dtype.F32, dims...)
	if t.Shape.Check() != nil || t.Shape.Size() > maxParam {
		c.Fail("its %s of shape %v would have more than %d elements", name, t.Shape, maxParam)
	}
	n := c.G.Variable(full, t)
	p := Param{Name: full, Type: t, Init: init, Trainable: trainable && !c.frozen(full), Decay: trainable && len(dims) > 1 && name != "bias"}
	c.Params = append(c.Params, p)
	if c.Wrap != nil {
		p.Trainable = trainable
		n = c.Wrap(c, p, n)
	}
	c.known[full] = n
	return n
}

// fixed is a parameter of any type that is not trained, zeros until it is set.
func (c *Call) fixed(name string, t graph.Type) *graph.Node { return c.holding(name, t, 0) }

// holding is fixed that holds so many weights; 0: as many as it has elements.
func (c *Call) holding(name string, t graph.Type, weights int) *graph.Node {
	full := c.full(name)
	if n := c.known[full]; n != nil {
		return n
	}
	n := c.G.Variable(full, t)
	c.known[full] = n
	c.Params = append(c.Params, Param{Name: full, Type: t, Init: Zeros, Weights: weights})
	return n
}

// Extra is a parameter that belongs to no layer, for Wrap.
func (c *Call) Extra(name string, init Initializer, trainable bool, dims ...int) *graph.Node {
	t := graph.T(dtype.F32, dims...)
	c.Params = append(c.Params, Param{Name: name, Type: t, Init: init, Trainable: trainable})
	return c.G.Variable(name, t)
}

// ExtraOf is a variable of any type that belongs to no layer and is not trained, zeros until it is set, for Wrap.
func (c *Call) ExtraOf(name string, t graph.Type) *graph.Node {
	c.Params = append(c.Params, Param{Name: name, Type: t, Init: Zeros})
	return c.G.Variable(name, t)
}

// Layer is the layer that is being called.
func (c *Call) Layer() *Layer { return c.layer }

// Leave gives a variable the value that it has after a training step, as moving averages do.
func (c *Call) Leave(v, value *graph.Node) {
	c.moves = append(c.moves, graph.Assign{Var: v, Value: value})
}

func (c *Call) frozen(param string) bool { return c.Frozen != nil && c.Frozen(param) }

// within runs f for a part of the layer: names of parameters and the ledger's lines are the part's.
func (c *Call) within(part string, f func()) {
	old := c.prefix
	c.prefix += part + "/"
	c.G.In(part, f)
	c.prefix = old
}

// Fail stops with an error about the layer being called.
func (c *Call) Fail(format string, args ...any) {
	c.G.Fail(c.layer.class, nil, format, args...)
}

// Model is layers applied to values. Make one with Sequential or Functional.
type Model struct {
	Name    string
	inputs  []*Value
	outputs []*Value
	chain   []*Layer // of a Sequential: its shape of input is given by the data
	order   []*Value // every value, each after what it is made from
	layers  []*Layer // every layer once, in the order of first use
}

// Sequential is layers one after another. The shape of the input comes from the data when the model is compiled.
func Sequential(layers ...*Layer) *Model {
	m := &Model{Name: "sequential", chain: append([]*Layer{}, layers...)}
	m.layers = distinct(layers)
	m.nameLayers()
	return m
}

// Functional is the model from inputs to outputs. Branches, shared layers, several inputs and outputs are all allowed.
func Functional(inputs, outputs []*Value) (*Model, error) {
	m := &Model{Name: "functional", inputs: inputs, outputs: outputs}
	seen := map[*Value]bool{}
	for i, v := range inputs {
		if v == nil {
			return nil, fmt.Errorf("nn: input %d of the model is nil", i)
		}
		if v.layer != nil {
			return nil, fmt.Errorf("nn: input %d of the model is the result of layer %s; inputs are made by nn.Input", i, v.layer.class)
		}
		seen[v] = true
		m.order = append(m.order, v)
	}
	var visit func(v *Value) error
	visit = func(v *Value) error {
		if seen[v] {
			return nil
		}
		if v.layer == nil {
			return fmt.Errorf("nn: an output depends on an input of shape %v that is not among the model's inputs", v.shape)
		}
		for _, x := range v.from {
			if err := visit(x); err != nil {
				return err
			}
		}
		seen[v] = true
		m.order = append(m.order, v)
		m.layers = append(m.layers, v.layer)
		return nil
	}
	for i, v := range outputs {
		if v == nil {
			return nil, fmt.Errorf("nn: output %d of the model is nil", i)
		}
		if err := visit(v); err != nil {
			return nil, err
		}
	}
	m.layers = distinct(m.layers)
	m.nameLayers()
	return m, m.check()
}

func distinct(layers []*Layer) []*Layer {
	seen := map[*Layer]bool{}
	var out []*Layer
	for _, l := range layers {
		if !seen[l] {
			seen[l] = true
			out = append(out, l)
		}
	}
	return out
}

// check finds mistakes of construction that only all layers together show.
func (m *Model) check() error {
	if m.chain != nil && len(m.chain) == 0 || m.chain == nil && len(m.outputs) == 0 {
		return fmt.Errorf("nn: model %q has no layers", m.Name)
	}
	named := map[string]*Layer{}
	for i, l := range m.layers {
		if l == nil {
			return fmt.Errorf("nn: layer %d of model %q is nil", i, m.Name)
		}
		if old := named[l.name]; old != nil {
			return fmt.Errorf("nn: two layers of model %q are named %q (%s at %s and %s at %s); parameters are kept by name", m.Name, l.name, old.class, old.site, l.class, l.site)
		}
		named[l.name] = l
	}
	return nil
}

// nameLayers gives nameless layers Keras's names: conv2d, conv2d_1, …
func (m *Model) nameLayers() {
	used := map[string]bool{}
	for _, l := range m.layers {
		if l != nil {
			used[l.name] = true
		}
	}
	for _, l := range m.layers {
		if l == nil || l.name != "" {
			continue
		}
		base := snake(l.class)
		l.name = base
		for i := 1; used[l.name]; i++ {
			l.name = fmt.Sprintf("%s_%d", base, i)
		}
		used[l.name] = true
	}
}

var (
	word  = regexp.MustCompile(`(.)([A-Z][a-z]+)`)
	upper = regexp.MustCompile(`([a-z])([A-Z])`)
)

// snake turns "MaxPooling2D" into "max_pooling2d", by Keras's two rules.
func snake(class string) string {
	return strings.ToLower(upper.ReplaceAllString(word.ReplaceAllString(class, "${1}_$2"), "${1}_$2"))
}

// Chain is the layers of a Sequential model one after another, nil of another model.
func (m *Model) Chain() []*Layer { return m.chain }

// Layers are the model's layers in the order of first use.
func (m *Model) Layers() []*Layer { return m.layers }

// Inputs are the types of the model's inputs for a batch of n, given the shapes of the data's inputs (without the batch).
func (m *Model) Inputs(n int, data []graph.Type) ([]graph.Type, error) {
	if m.chain != nil {
		if len(data) != 1 {
			return nil, fmt.Errorf("nn: a Sequential model takes one input, the data has %d", len(data))
		}
		return []graph.Type{batched(n, data[0])}, nil
	}
	if len(data) != len(m.inputs) {
		return nil, fmt.Errorf("nn: the model takes %d inputs, the data has %d", len(m.inputs), len(data))
	}
	out := make([]graph.Type, len(data))
	for i, v := range m.inputs {
		own := graph.Type{DType: v.dt, Shape: v.shape}
		if !own.Equal(data[i]) {
			return nil, fmt.Errorf("nn: input %d of the model is %v, that of the data %v", i, own, data[i])
		}
		out[i] = batched(n, own)
	}
	return out, nil
}

func batched(n int, t graph.Type) graph.Type {
	return graph.Type{DType: t.DType, Shape: append(shape.Of(n), t.Shape...)}
}

// Call adds the model's nodes to c.G, with x as its inputs (batch first), and gives its outputs. It panics with *graph.Error, as builders do;
// the error names the layer and the line that made it.
func (m *Model) Call(c *Call, x []*graph.Node) []*graph.Node {
	if err := m.check(); err != nil {
		c.G.Fail("model", nil, "%v", err)
	}
	if c.known == nil {
		c.known = map[string]*graph.Node{}
	}
	out := m.apply(c, x)
	for _, a := range c.moves {
		if c.Moved != nil {
			c.Moved(a.Var, a.Value)
			continue
		}
		c.G.Update(a.Var, a.Value)
	}
	c.moves = nil
	return out
}

func (m *Model) apply(c *Call, x []*graph.Node) []*graph.Node {
	if m.chain != nil {
		return []*graph.Node{m.inTurn(c, x[0])}
	}
	at := map[*Value]*graph.Node{}
	grows := map[*Value]bool{}
	for i, v := range m.inputs {
		at[v] = x[i]
		grows[v] = c.Cache != nil && i == c.Cache.Input
	}
	if c.Cache != nil {
		c.Cache.fixed = map[*graph.Node]bool{}
	}
	scores, after := m.ends(c)
	for _, v := range m.order {
		if v.layer == nil || v == after && c.Scores != nil {
			continue
		}
		in := make([]*graph.Node, len(v.from))
		for i, f := range v.from {
			in[i] = at[f]
			grows[v] = grows[v] || grows[f]
		}
		if v == scores && v.layer.scoring(in[0]) {
			at[v] = c.scoresOf(v.layer, in)
			if after != nil {
				at[after] = at[v]
			}
			continue
		}
		if c.Cache == nil || grows[v] {
			at[v] = c.layerOn(v.layer, in)
			continue
		}
		cache := c.Cache
		c.Cache = nil
		at[v] = c.layerOn(v.layer, in)
		c.Cache = cache
		cache.fixed[at[v]] = true
	}
	out := make([]*graph.Node, len(m.outputs))
	for i, v := range m.outputs {
		out[i] = at[v]
	}
	return out
}

// inTurn applies the layers of a chain.
func (m *Model) inTurn(c *Call, y *graph.Node) *graph.Node {
	n := len(m.chain)
	var before *Layer
	if n > 1 {
		before = m.chain[n-2]
	}
	scores, after := c.ends(m.chain[n-1], before)
	final := n - 1 // the place of scores
	if after != nil {
		final--
	}
	for i := 0; i < n; i++ {
		if scores != nil && i == final && scores.scoring(y) {
			return c.scoresOf(scores, []*graph.Node{y})
		}
		if i+1 < n && c.pair(m.chain[i], m.chain[i+1]) {
			if scores == nil || i+1 != final || m.chain[i].classes() >= scores.classes() { // else sums of the second's results would be more than what is split of the first
				if i+1 == final {
					scores = nil
				}
				c.role = columns
				y = c.layerOn(m.chain[i], []*graph.Node{y})
				c.role = rowsOf
				i++
			}
		}
		y = c.layerOn(m.chain[i], []*graph.Node{y})
		c.role = entire
	}
	return y
}

// ends is the value whose scores the model ends in, before the softmax, where they are split, and the softmax behind it if that is a layer of its own; nil otherwise.
func (m *Model) ends(c *Call) (scores, after *Value) {
	if len(m.outputs) != 1 || m.outputs[0].layer == nil {
		return nil, nil
	}
	out := m.outputs[0] // nothing else takes it, nor what it alone is made of
	before := &Value{}
	if len(out.from) == 1 {
		before = out.from[0]
	}
	l, soft := c.ends(out.layer, before.layer)
	switch {
	case l == nil:
		return nil, nil
	case soft != nil:
		return before, out
	}
	return out, nil
}

func (c *Call) layerOn(l *Layer, x []*graph.Node) (y *graph.Node) {
	old, prefix := c.layer, c.prefix
	c.layer, c.prefix = l, ""
	defer func() { c.layer, c.prefix = old, prefix }()
	c.G.In(l.name, func() {
		c.G.At(l.site, func() {
			if err := l.kind.check(); err != nil {
				c.Fail("%v", err)
			}
			if c.Cache != nil && whole[l.class] {
				c.Fail("looks at several positions of a sequence at once and remembers none: a sequence cannot grow by and by with it")
			}
			if c.Tap != nil {
				c.Tap(l, x)
			}
			if c.Operand != nil {
				x = slices.Clone(x)
				for i, v := range x {
					x[i] = c.Operand(c, l, i, v)
				}
			}
			if c.mixed() && !moves(l.kind) {
				rounded := make([]*graph.Node, len(x))
				for i, v := range x {
					rounded[i] = c.round(v)
				}
				x = rounded
			}
			y = l.kind.call(c, x)
			c.checkFormats(l)
		})
	})
	if c.seen != nil {
		c.seen(l, y)
	}
	return y
}

// Site is the line of the user's program that made the layer.
func (l *Layer) Site() string { return l.site.String() }
