package nn

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["SimpleRNN"] = func() kind { return &simpleRNN{newRecurrent(), Tanh} }
	classes["LSTM"] = func() kind { return &lstm{newRecurrent(), true} }
	classes["GRU"] = func() kind { return &gru{newRecurrent(), true} }
	classes["Bidirectional"] = func() kind { return &bidirectional{Merge: "concat"} }
}

// recurrent are the settings of all recurrent layers.
type recurrent struct {
	Units            int         `json:"units"`
	UseBias          bool        `json:"use_bias"`
	KernelInit       Initializer `json:"kernel_initializer"`
	RecurrentInit    Initializer `json:"recurrent_initializer"`
	BiasInit         Initializer `json:"bias_initializer"`
	Dropout          float64     `json:"dropout"`
	RecurrentDropout float64     `json:"recurrent_dropout"`
	Sequences        bool        `json:"return_sequences"`
	Backwards        bool        `json:"go_backwards"`
	Stateful         bool        `json:"stateful"`
}

func newRecurrent() recurrent {
	return recurrent{UseBias: true, KernelInit: GlorotUniform, RecurrentInit: Orthogonal, BiasInit: Zeros}
}

func (r *recurrent) common() *recurrent { return r }

func (r *recurrent) kernelInit() *Initializer { return &r.KernelInit }

func (r *recurrent) check() error {
	if r.Stateful && r.Backwards {
		return fmt.Errorf("stateful and go_backwards exclude each other: what is to come has not been read yet")
	}
	if err := (&dropout{r.RecurrentDropout}).check(); err != nil {
		return fmt.Errorf("recurrent_dropout: %w", err)
	}
	return first(positive("units", r.Units), (&dropout{r.Dropout}).check(), r.KernelInit.check("kernel_initializer"),
		r.RecurrentInit.check("recurrent_initializer"), r.BiasInit.check("bias_initializer"))
}

// cell is a kind of recurrent layer.
type cell interface {
	kind
	common() *recurrent
	// cell is its name in op.RecurrentAttrs, and the number of its gates.
	cell() (name string, gates int)
	// biasInit is the initialiser of its bias.
	biasInit() Initializer
}

func recurrentSetting(what string, set func(r *recurrent)) Option {
	return setting{what, func(k kind) bool {
		r, ok := k.(cell)
		if ok {
			set(r.common())
		}
		return ok
	}}
}

// ReturnSequences makes a recurrent layer give its state at every position, not the last alone.
func ReturnSequences() Option {
	return recurrentSetting("ReturnSequences", func(r *recurrent) { r.Sequences = true })
}

// GoBackwards makes a recurrent layer read its sequence from the end; with ReturnSequences the states come in that order.
func GoBackwards() Option {
	return recurrentSetting("GoBackwards", func(r *recurrent) { r.Backwards = true })
}

// Stateful makes a recurrent layer go on from the state in which the batch before has left it: row i of a batch continues row i of the batch before. Gradients do not flow from one batch
// into another, so training with it is truncated backpropagation through time. Package train lays the data out for it and begins anew in each epoch.
func Stateful() Option {
	return recurrentSetting("Stateful", func(r *recurrent) { r.Stateful = true })
}

// Stateful reports whether a layer of the model carries its state from batch to batch.
func (m *Model) Stateful() bool {
	return slices.ContainsFunc(m.layers, (*Layer).Stateful)
}

// Stateful reports whether the layer carries its state from batch to batch.
func (l *Layer) Stateful() bool {
	k := l.kind
	if d, ok := k.(*attentionDecoder); ok {
		k = d.Layer.kind
	}
	r, ok := k.(cell)
	return ok && r.common().Stateful
}

// InputDropout drops a share of the features of a recurrent layer's input in training, the same at all positions of a sequence.
func InputDropout(rate float64) Option {
	return recurrentSetting("InputDropout", func(r *recurrent) { r.Dropout = rate })
}

// RecurrentDropout drops a share of the state on its way into the product in training, the same at all positions of a sequence (arXiv:1512.05287).
func RecurrentDropout(rate float64) Option {
	return recurrentSetting("RecurrentDropout", func(r *recurrent) { r.RecurrentDropout = rate })
}

// RecurrentInit sets the initialiser of the weights between states (orthogonal).
func RecurrentInit(i Initializer) Option {
	return recurrentSetting("RecurrentInit", func(r *recurrent) { r.RecurrentInit = i })
}

type simpleRNN struct {
	recurrent
	Activation Activation `json:"activation"`
}

// SimpleRNN is h_t = tanh(x_t·W + h_{t-1}·U + b) over a sequence [time, features], or relu with the option ReLU. It gives the last state [units], or with
// ReturnSequences all of them [time, units].
//
// A recurrent layer may have more operands: i32, one for each example, says how many positions count, and at later ones the state stays as it is; a vector
// [units] is the first state, and of an LSTM a second one the first cell, zeros without.
func SimpleRNN(units int, opts ...Option) *Layer {
	r := newRecurrent()
	r.Units = units
	return layer("SimpleRNN", &simpleRNN{r, Tanh}, opts)
}

func (s *simpleRNN) check() error {
	if s.Activation != Tanh && s.Activation != ReLU {
		return unknown("activation of a SimpleRNN", string(s.Activation), []string{string(ReLU), string(Tanh)})
	}
	return s.recurrent.check()
}

func (s *simpleRNN) cell() (string, int)   { return string(s.Activation), 1 }
func (s *simpleRNN) biasInit() Initializer { return s.BiasInit }

func (s *simpleRNN) call(c *Call, x []*graph.Node) *graph.Node { return recurrence(c, s, x) }

type lstm struct {
	recurrent
	UnitForget bool `json:"unit_forget_bias"`
}

// LSTM is a long short-term memory over a sequence [time, features]: i, f, o = σ(x·W + h·U + b), c_t = f·c_{t-1} + i·tanh(…), h_t = o·tanh(c_t). SimpleRNN says what it gives and
// what it takes.
func LSTM(units int, opts ...Option) *Layer {
	r := newRecurrent()
	r.Units = units
	return layer("LSTM", &lstm{r, true}, opts)
}

func (*lstm) cell() (string, int) { return "lstm", 4 }

func (l *lstm) biasInit() Initializer {
	if l.UnitForget && l.BiasInit == Zeros {
		return UnitForgetBias
	}
	return l.BiasInit
}

func (l *lstm) call(c *Call, x []*graph.Node) *graph.Node { return recurrence(c, l, x) }

// ResetBefore makes a GRU multiply the state with the reset gate before the product: n = tanh(x·W + (r·h)·U + b), which Keras calls reset_after false. A step has
// two products, one after the other, so it takes a little longer than the other form, and threads do not share the steps of a single sequence.
func ResetBefore() Option {
	return setting{"ResetBefore", func(k kind) bool {
		g, ok := k.(*gru)
		if ok {
			g.ResetAfter = false
		}
		return ok
	}}
}

type gru struct {
	recurrent
	ResetAfter bool `json:"reset_after"`
}

// GRU is a gated recurrent unit over a sequence [time, features]: z, r = σ(x·W + h·U + b), n = tanh(x·W + r·(h·U + b)), h_t = z·h_{t-1} + (1-z)·n, the form that Keras and PyTorch
// run; ResetBefore gives the other. SimpleRNN says what it gives and what it takes.
func GRU(units int, opts ...Option) *Layer {
	r := newRecurrent()
	r.Units = units
	return layer("GRU", &gru{r, true}, opts)
}

func (g *gru) cell() (string, int) {
	if !g.ResetAfter {
		return "gru1", 3
	}
	return "gru", 3
}
func (g *gru) biasInit() Initializer { return g.BiasInit }

func (g *gru) call(c *Call, x []*graph.Node) *graph.Node { return recurrence(c, g, x) }

// recurrence is a recurrent layer's result.
func recurrence(c *Call, k cell, x []*graph.Node) *graph.Node {
	r := k.common()
	states, last := unfold(c, k, r.Backwards, x)
	if !r.Sequences {
		return last
	}
	if r.Backwards {
		return op.Reverse(states, 1)
	}
	return states
}

// unfold runs a cell over a sequence: the state after each position [batch, time, units], at its place, and the last one.
func unfold(c *Call, k cell, backwards bool, x []*graph.Node) (states, last *graph.Node) {
	r := k.common()
	name, gates := k.cell()
	var in, lengths *graph.Node
	var first []*graph.Node
	for i, v := range x {
		s := v.Shape()
		switch {
		case i == 0 && v.DType().IsFloat() && len(s) == 3 && s[1] > 0:
			in = v
		case i > 0 && v.DType().IsInt() && len(s) == 1 && lengths == nil:
			lengths = op.Convert(v, dtype.I32)
		case i > 0 && v.DType().IsFloat() && len(s) == 2 && s[1] == r.Units && (len(first) == 0 || name == "lstm" && len(first) == 1):
			first = append(first, v)
		default:
			c.Fail("operand %d is %v; it takes a sequence of floats [batch time features], perhaps lengths i32 [batch] and a first state [batch %d]", i, v.Type(), r.Units)
		}
	}
	if in == nil {
		c.Fail("takes a sequence, was given nothing")
	}
	batch, time, features := in.Shape()[0], in.Shape()[1], in.Shape()[2]
	h := r.Units
	if mask := c.dropMask(r.Dropout, batch, features); mask != nil {
		in = op.Mul(in, op.Reshape(mask, batch, 1, features))
	}
	product := c.product(op.Reshape(in, batch*time, features), "kernel", r.KernelInit, features, gates*h)
	var u, scale *graph.Node
	attrs := op.RecurrentAttrs{Cell: name, Reverse: backwards, BF16: c.mixed()}
	if f, ok := c.format("recurrent_kernel"); ok {
		u, scale, _ = c.few("recurrent_kernel", f, gates*h, h)
		attrs.Bits, attrs.Group = f.Bits, f.Group
	} else {
		u = c.Param("recurrent_kernel", r.RecurrentInit, true, h, gates*h)
	}
	var inner, outer *graph.Node // biases: of the products of the states, of those of the inputs
	if r.UseBias {
		if name == "gru" {
			b := c.Param("bias", k.biasInit(), true, 2, gates*h)
			outer, inner = op.Reshape(op.SliceAxis(b, 0, 0, 1), gates*h), op.Reshape(op.SliceAxis(b, 0, 1, 2), gates*h)
		} else {
			outer = c.Param("bias", k.biasInit(), true, gates*h)
		}
	}
	if name == "gru" && inner == nil {
		inner = op.Full(c.G, graph.T(dtype.F32, gates*h), 0)
	}
	if outer != nil {
		product = op.Add(product, outer)
	}
	state := graph.Type{DType: in.DType(), Shape: graph.T(dtype.F32, batch, h).Shape}
	var names []string
	if c.Cache != nil {
		if backwards || len(first) > 0 || lengths != nil {
			c.Fail("a sequence can grow by and by only forwards, from its own state")
		}
		names = []string{"state", "cell"}[:1+gates/4]
		for _, n := range names {
			first = append(first, c.Cache.last(c, n, state, time))
		}
		lengths = c.Cache.Counts
	}
	carried := func(n string) *graph.Node {
		return c.G.Variable(carryScope+c.Carry+"/"+c.layer.name+"/"+c.prefix+n, state)
	}
	carries := r.Stateful && c.Carry != "" && c.Cache == nil
	if carries {
		if len(first) > 0 {
			c.Fail("a stateful layer has the state of the batch before; it takes no other")
		}
		names = []string{"state", "cell"}[:1+gates/4]
		for _, n := range names {
			first = append(first, carried(n))
		}
	}
	for len(first) < 2 {
		first = append(first, op.Full(c.G, state, 0))
	}
	var c0 *graph.Node
	if name == "lstm" {
		c0 = first[1]
	}
	product = op.Reshape(product, batch, time, gates*h)
	mask := c.dropMask(r.RecurrentDropout, batch, h)
	var cells *graph.Node
	if scale != nil {
		states, cells = op.QRecurrent(product, u, scale, first[0], c0, inner, lengths, mask, attrs)
	} else {
		states, cells = op.Recurrent(product, u, first[0], c0, inner, lengths, mask, attrs)
	}
	end := time - 1
	if backwards {
		end = 0
	}
	at := func(x *graph.Node) *graph.Node { return op.Reshape(op.SliceAxis(x, 1, end, end+1), batch, h) }
	last = at(states)
	for i, n := range names {
		x := []*graph.Node{last, cells}[i]
		if !carries {
			c.Cache.keep(c, n, x, at)
			continue
		}
		if len(x.Shape()) == 3 {
			x = at(x)
		}
		c.G.Update(carried(n), x)
	}
	return states, last
}

const carryScope = "carry:"

// Carried says whether a variable of that name is the state that a stateful layer carries from call to call, and the word of Call.Carry that it belongs to.
func Carried(variable string) (carry string, ok bool) {
	rest, ok := strings.CutPrefix(variable, carryScope)
	carry, _, _ = strings.Cut(rest, "/")
	return carry, ok
}

// dropMask is the factors [dims] of a dropout that is the same at all positions, nil outside training.
func (c *Call) dropMask(rate float64, dims ...int) *graph.Node {
	if !c.Training || rate == 0 {
		return nil
	}
	u := c.Uniform(dims...)
	return op.Select(op.Ge(u, op.Like(u, rate)), op.Full(c.G, u.Type(), 1/(1-rate)), op.Full(c.G, u.Type(), 0))
}

func (m *Cache) variable(c *Call, name string, t graph.Type) *graph.Node {
	return c.G.Variable(cacheScope+m.Name+"/"+c.layer.name+"/"+c.prefix+name, t)
}

// last is the state that the call before left, zeros where a sequence begins with this call.
func (m *Cache) last(c *Call, name string, t graph.Type, time int) *graph.Node {
	older := op.Convert(op.Gt(m.Lengths, op.Like(m.Lengths, float64(time))), t.DType)
	v := m.variable(c, name, t)
	return op.Select(op.BroadcastTo(op.Reshape(op.Gt(older, op.Like(older, 0)), t.Shape[0], 1), t.Shape...), v, op.Full(c.G, t, 0))
}

// keep leaves a state for the next call: x itself, or what at takes of a sequence.
func (m *Cache) keep(c *Call, name string, x *graph.Node, at func(x *graph.Node) *graph.Node) {
	if len(x.Shape()) == 3 {
		x = at(x)
	}
	c.G.Update(m.variable(c, name, x.Type()), x)
}

// nested is a layer within the configuration of another: {"LSTM": {"units": 64}}.
type nested struct {
	class string
	kind  kind
}

// MarshalJSON implements json.Marshaler.
func (n nested) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{n.class: n.kind})
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *nested) UnmarshalJSON(b []byte) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 1 {
		return fmt.Errorf("want one layer with its settings, such as {\"LSTM\": {\"units\": 64}}, not %s", b)
	}
	for class, config := range m {
		l, err := layerOf(class, "", config)
		if err != nil {
			return err
		}
		n.class, n.kind = class, l.kind
	}
	return nil
}

type bidirectional struct {
	Layer nested `json:"layer"`
	Merge string `json:"merge_mode"`
}

var merging = []string{"ave", "concat", "mul", "sum"}

// Bidirectional runs a recurrent layer over a sequence from both ends, each with weights of its own, and joins the results: side by side, or as merge (one of "sum", "mul", "ave")
// says.
func Bidirectional(l *Layer, merge ...string) *Layer {
	b := &bidirectional{Layer: nested{l.class, l.kind}, Merge: "concat"}
	if len(merge) > 0 {
		b.Merge = merge[0]
	}
	return layer("Bidirectional", b, nil)
}

func (b *bidirectional) check() error {
	k, ok := b.Layer.kind.(cell)
	if !ok {
		return fmt.Errorf("layer must be a recurrent one (SimpleRNN, LSTM, GRU), not %q", b.Layer.class)
	}
	if k.common().Stateful {
		return fmt.Errorf("a layer of two directions cannot be stateful: what is to come has not been read yet")
	}
	for _, m := range merging {
		if m == b.Merge {
			return k.check()
		}
	}
	return unknown("merge_mode", b.Merge, merging)
}

func (b *bidirectional) call(c *Call, x []*graph.Node) *graph.Node {
	k := b.Layer.kind.(cell)
	r := k.common()
	var ends [2]*graph.Node
	for i, name := range []string{"forward_", "backward_"} {
		c.within(name+snake(b.Layer.class), func() {
			states, last := unfold(c, k, i == 1 != r.Backwards, x)
			if ends[i] = last; r.Sequences {
				ends[i] = states
			}
		})
	}
	switch b.Merge {
	case "sum":
		return op.Add(ends[0], ends[1])
	case "mul":
		return op.Mul(ends[0], ends[1])
	case "ave":
		return op.Mul(op.Add(ends[0], ends[1]), op.Like(ends[0], 0.5))
	}
	return op.Concat(len(ends[0].Shape())-1, ends[0], ends[1])
}
