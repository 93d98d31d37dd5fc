// Package spec reads specifications: YAML files that say what to train on what, with Keras's names.
//
//	name: digits
//	data: mnist
//	model:
//	  - Conv2D: {filters: 32, kernel_size: 3, activation: relu}
//	  - MaxPooling2D: {pool_size: 2}
//	  - Flatten
//	  - Dense: {units: 10, activation: softmax}
//	compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
//	fit: {epochs: 10, batch_size: 32}
//
// data may be {name: mnist, take: 2000, test: 1000, shuffle: 1}: so many examples of either part, the first or, with shuffle, those that this seed chooses. fit may have until, values at which training ends ({val_accuracy: 0.9}), and augment, the random changes of training examples: [flip, crop: 4, rotate: 10, mixup: 0.2, normalise] (docs/data.md). transfer, distil, prune and lora adapt and shrink models (docs/compress.md).
// ranks says how processes share the training (docs/distributed.md).
//
// A layer may have a name, and inputs, the names of the layers that it is applied to (without, it is the layer before); "input" is the data's first input, and
// the data's inputs have names too (joule data info). "- Reuse: NAME"
// applies an earlier layer once more, with the same weights, and "- Backbone: MODEL" puts a trained model there (docs/transfer.md). Where a layer takes a number, the word classes is how many classes the data has (of text: the
// size of the vocabulary). Every error names the file and the line.
package spec

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/internal/nearest"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// Spec is what a file says.
type Spec struct {
	Name  string
	Doc   string
	Text  string // the file itself
	Data  string // a name or path that data.Open takes
	Fit   Fit
	Split Split

	// Ranks says how processes share the training; without them it says nothing but the shards.
	Ranks Ranks

	file string
	// Resolve gives the model file that a word in transfer or distil means; without it the word is the file.
	Resolve func(ref string) (path string, err error)
	// Resumed leaves out the weights that transfer names: a checkpoint has them.
	Resumed bool
	// Once says that the caller heeds cache: it trains on what frozen layers, or a teacher, have computed once. Without it they compute in every step.
	Once bool
	// Positions, if > 0, is how many positions learned position layers have at least: for a look at what longer sequences cost.
	Positions int
	// Taken and Left are the parameters that Compile has taken from the model that transfer names, and the others.
	Taken, Left []string

	changes   []change
	norm      *data.Norm // of augment: normalise; empty: to be measured
	late      *data.Norm // with which training examples are normalised as they are loaded, after random changes; nil: not so
	adapted   adapted
	layers    []layerSpec
	open      []openName
	loss      train.Loss
	precision nn.Policy
	metrics   []train.Metric
	optimizer func(steps int64) (*optim.Optimizer, error)
}

// Fit are the settings of the training.
type Fit struct {
	Epochs     int
	BatchSize  int
	Accumulate int
	Recompute  []string // layers whose inside the backward pass computes again: names or patterns, empty for all Transformer blocks, nil for none
	Augment    []data.Transform
	Mixup      float64 // alpha of train.Mixup; 0: examples are not mixed
	Callbacks  []train.Callback
}

// Split says which examples are used.
type Split struct {
	Take    int     `json:"take,omitempty"`    // if > 0: only so many examples of the training part
	Test    int     `json:"test,omitempty"`    // if > 0: only so many of the test part
	Shuffle *uint64 `json:"shuffle,omitempty"` // the seed by which they are chosen at random; nil: they are the first
}

// openName is a name that only the data can explain, with the error if it does not.
type openName struct {
	err  error
	name string
}

type layerSpec struct {
	line   int
	class  string
	name   string
	inputs []string
	layer  *nn.Layer
	config map[string]any // of a layer that depends on the data: see wordClasses
	reuse  string         // the name of the earlier layer that is applied again

	backbone *backbone // a trained model in the place of a layer
}

// wordClasses stands, where a layer takes a number, for how many classes the data has: the size of the vocabulary of a text.
const wordClasses = "classes"

//go:embed presets/*.yaml
var presets embed.FS

// Presets lists the names of the specifications that come with Joule.
func Presets() []string {
	files, _ := fs.Glob(presets, "presets/*.yaml")
	var out []string
	for _, f := range files {
		out = append(out, strings.TrimSuffix(strings.TrimPrefix(f, "presets/"), ".yaml"))
	}
	return out
}

// Open reads a preset by name, or a file.
func Open(name string) (*Spec, error) {
	if b, err := presets.ReadFile("presets/" + name + ".yaml"); err == nil {
		return Parse(b, "preset "+name)
	}
	if strings.HasSuffix(name, ".safetensors") { // which may be far greater than what is read as a specification
		if _, err := os.Stat(name); err == nil {
			return nil, fmt.Errorf("spec: %s is a model file; a specification says what to train, and transfer: {from: %s} in it to begin at these weights", name, name)
		}
	}
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !strings.ContainsAny(name, "./\\") {
		return nil, fmt.Errorf("spec: there is no preset %q and no file of that name; presets: %s", name, strings.Join(Presets(), ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("spec: %w", err)
	}
	return Parse(b, name)
}

// at is an error at a line of a file.
func at(file string, n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", file, n.Line, fmt.Errorf(format, args...))
}

// reader walks a mapping: each key it is asked for is taken, and what is left at the end is unknown.
type reader struct {
	file string
	what string // "compile", "fit", …
	node *yaml.Node
	keys map[string]*yaml.Node
	seen []string
}

func mapping(file, what string, n *yaml.Node) (*reader, error) {
	if n.Kind != yaml.MappingNode {
		return nil, at(file, n, "%s must be a mapping of keys to values", what)
	}
	r := &reader{file, what, n, map[string]*yaml.Node{}, nil}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i].Value
		if r.keys[k] != nil {
			return nil, at(file, n.Content[i], "%s has the key %q twice", what, k)
		}
		r.keys[k] = n.Content[i+1]
	}
	return r, nil
}

// take gives the value of a key, nil if there is none.
func (r *reader) take(key string) *yaml.Node {
	r.seen = append(r.seen, key)
	return r.keys[key]
}

// into decodes the value of a key, if there is one.
func (r *reader) into(key string, to any) error {
	n := r.take(key)
	if n == nil {
		return nil
	}
	if err := n.Decode(to); err != nil {
		return at(r.file, n, "%s: %s: want a value like %v", r.what, key, example(to))
	}
	return nil
}

func example(to any) string {
	switch to.(type) {
	case *int, *int64, *uint64, **uint64:
		return "32"
	case *float64:
		return "0.001"
	case *bool:
		return "true"
	case *[]string:
		return "[accuracy]"
	}
	return "mnist"
}

// done reports the first key that nobody took, with the nearest known one.
func (r *reader) done() error {
	for i := 0; i+1 < len(r.node.Content); i += 2 {
		k := r.node.Content[i]
		if !slices.Contains(r.seen, k.Value) {
			return at(r.file, k, "%s has no key %q%s", r.what, k.Value, known(k.Value, r.seen))
		}
	}
	return nil
}

// known is the end of an error about an unknown word: the known word nearest to it, if one is near, and all known words.
func known(word string, words []string) string {
	words = slices.Sorted(slices.Values(words))
	return nearest.Hint(word, words) + " (known: " + strings.Join(words, ", ") + ")"
}

// Parse reads a specification. file is named in errors.
func Parse(text []byte, file string) (*Spec, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty", file)
	}
	s := &Spec{Name: "model", Text: string(text), file: file, Fit: Fit{Epochs: 1, BatchSize: 32, Accumulate: 1}}
	r, err := mapping(file, "the specification", doc.Content[0])
	if err != nil {
		return nil, err
	}
	steps := []error{r.into("name", &s.Name), r.into("doc", &s.Doc), s.data(r), s.model(r), s.compile(r), s.fit(r), s.adapt(r), s.ranks(r), r.done()}
	for _, err := range steps {
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Spec) data(r *reader) error {
	n := r.take("data")
	if n == nil {
		return at(s.file, r.node, "data is missing: the name of a data set, such as mnist, or a path")
	}
	if n.Kind == yaml.ScalarNode {
		s.Data = n.Value
		return nil
	}
	d, err := mapping(s.file, "data", n)
	if err != nil {
		return err
	}
	if err := errors.Join(d.into("name", &s.Data), d.into("take", &s.Split.Take), d.into("test", &s.Split.Test), d.into("shuffle", &s.Split.Shuffle)); err != nil {
		return err
	}
	switch {
	case s.Split.Take < 0 || s.Split.Test < 0:
		return at(s.file, n, "data: take and test are numbers of examples, and must not be negative")
	case s.Split.Shuffle != nil && s.Split.Take == 0 && s.Split.Test == 0:
		return at(s.file, n, "data: shuffle chooses examples at random: take or test says how many")
	}
	if s.Data == "" {
		return at(s.file, n, "data: name is missing")
	}
	return d.done()
}

func (s *Spec) model(r *reader) error {
	n := r.take("model")
	if n == nil {
		return at(s.file, r.node, "model is missing: a list of layers")
	}
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		return at(s.file, n, "model must be a list of layers")
	}
	names := []string{"input"}
	for _, e := range n.Content {
		l, err := s.layer(e)
		if err != nil {
			return err
		}
		if l.reuse != "" && (l.reuse == "input" || !slices.Contains(names, l.reuse)) {
			return at(s.file, e, "Reuse: no layer before it is named %q%s", l.reuse, known(l.reuse, names[1:]))
		}
		for _, in := range l.inputs {
			if !slices.Contains(names, in) { // an input of the data, perhaps: Model finds out
				s.open = append(s.open, openName{at(s.file, e, "layer %s takes %q, and neither a layer before it nor an input of the data has that name%s", l.class, in, known(in, names)), in})
			}
		}
		if l.name != "" {
			if slices.Contains(names, l.name) {
				return at(s.file, e, "two layers are named %q", l.name)
			}
			names = append(names, l.name)
		}
		s.layers = append(s.layers, l)
	}
	return nil
}

// layer reads "Flatten" or "Dense: {units: 10}".
func (s *Spec) layer(n *yaml.Node) (layerSpec, error) {
	l := layerSpec{line: n.Line}
	config := map[string]any{}
	deferred := false
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "Backbone" {
		return s.readBackbone(n)
	}
	if n.Kind == yaml.MappingNode && len(n.Content) == 2 && n.Content[0].Value == "Reuse" {
		l.class, l.reuse = "Reuse", n.Content[1].Value
		if v := n.Content[1]; v.Kind == yaml.MappingNode {
			r, err := mapping(s.file, "Reuse", v)
			if err != nil {
				return l, err
			}
			if err := errors.Join(r.into("layer", &l.reuse), r.into("name", &l.name), r.into("inputs", &l.inputs), r.done()); err != nil {
				return l, err
			}
		}
		if l.reuse == "" {
			return l, at(s.file, n, "Reuse takes the name of an earlier layer: \"- Reuse: tokens\"")
		}
		return l, nil
	}
	switch {
	case n.Kind == yaml.ScalarNode:
		l.class = n.Value
	case n.Kind == yaml.MappingNode && len(n.Content) == 2:
		l.class = n.Content[0].Value
		v := n.Content[1]
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			break
		}
		r, err := mapping(s.file, "layer "+l.class, v)
		if err != nil {
			return l, err
		}
		if err := errors.Join(r.into("name", &l.name), r.into("inputs", &l.inputs)); err != nil {
			return l, err
		}
		for k, node := range r.keys {
			if k == "name" || k == "inputs" {
				continue
			}
			var x any
			if err := node.Decode(&x); err != nil {
				return l, at(s.file, node, "layer %s: %s: %v", l.class, k, err)
			}
			if x == wordClasses {
				deferred, x = true, nil
				l.config = map[string]any{}
			}
			config[k] = x
		}
	default:
		return l, at(s.file, n, "a layer is a name, or one name with its settings: \"- Dense: {units: 10}\"")
	}
	classes := 1 // until the data is known
	if deferred {
		l.config = config
	}
	var err error
	if l.layer, err = made(l.class, l.name, config, classes); err != nil {
		return l, at(s.file, n, "%w", err)
	}
	return l, nil
}

// made is a layer of a configuration in which nil stands for the number of classes.
func made(class, name string, config map[string]any, classes int) (*nn.Layer, error) {
	c := map[string]any{}
	for k, v := range config {
		if c[k] = v; v == nil {
			c[k] = classes
		}
	}
	j, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", class, err)
	}
	return nn.LayerOf(class, name, j)
}

// Model makes the model for data of the given spec.
func (s *Spec) Model(d data.Spec) (*nn.Model, error) {
	simple := true
	for i := range s.layers {
		l := &s.layers[i]
		simple = simple && len(l.inputs) == 0 && l.reuse == "" && l.backbone == nil
		if l.layer != nil && s.Positions > 0 {
			l.layer = l.layer.WithPositions(s.Positions)
		}
		if l.config == nil {
			continue
		}
		if d.Classes < 1 {
			return nil, fmt.Errorf("%s:%d: layer %s asks for the number of classes, which this data does not have", s.file, l.line, l.class)
		}
		var err error
		if l.layer, err = made(l.class, l.name, l.config, d.Classes); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", s.file, l.line, err)
		}
	}
	if simple {
		var ls []*nn.Layer
		for _, l := range s.layers {
			ls = append(ls, l.layer)
		}
		return nn.Sequential(ls...), nil
	}
	var inputs []*nn.Value
	by := map[string]*nn.Value{}
	for _, f := range d.Inputs {
		inputs = append(inputs, nn.InputOf(f.Name, f.DType, f.Shape...))
		by[f.Name] = inputs[len(inputs)-1]
	}
	for _, o := range s.open {
		if by[o.name] == nil {
			return nil, o.err
		}
	}
	by["input"] = inputs[0]
	last := inputs[0]
	layers := map[string]*nn.Layer{}
	for _, l := range s.layers {
		args := []*nn.Value{last}
		if len(l.inputs) > 0 {
			args = nil
			for _, name := range l.inputs {
				args = append(args, by[name])
			}
		}
		if l.backbone != nil {
			var err error
			if last, err = l.backbone.apply(s, l, by, last); err != nil {
				return nil, err
			}
			if l.name != "" {
				by[l.name] = last
			}
			continue
		}
		if l.reuse != "" {
			last = layers[l.reuse].On(args...)
			if l.name != "" {
				by[l.name] = last
			}
			continue
		}
		last = l.layer.On(args...)
		layers[l.name] = l.layer
		if l.name != "" {
			by[l.name] = last
		}
	}
	return nn.Functional(inputs, []*nn.Value{last})
}

// Applications is how many layers the model applies one after another, a layer that is applied again and a trained model in the place of a layer included once each time.
func (s *Spec) Applications() int { return len(s.layers) }

// Stateful reports whether a layer carries its state from batch to batch.
func (s *Spec) Stateful() bool {
	return slices.ContainsFunc(s.layers, func(l layerSpec) bool { return l.layer != nil && l.layer.Stateful() })
}

// Compile makes the model and compiles it. steps is the number of optimizer steps of the whole training, which schedules refer to.
func (s *Spec) Compile(d data.Spec, steps int64, opts ...train.Option) (*train.Model, error) {
	net, err := s.Model(d)
	if err != nil {
		return nil, err
	}
	net.Name = s.Name
	opt, err := s.optimizer(steps)
	if err != nil {
		return nil, err
	}
	all := []train.Option{train.Accumulate(s.Fit.Accumulate), train.DTypePolicy(s.precision)}
	if s.Fit.Recompute != nil {
		all = append(all, train.Recompute(s.Fit.Recompute...))
	}
	more, err := s.adapting()
	if err != nil {
		return nil, err
	}
	all = append(all, more...)
	for _, k := range s.metrics {
		all = append(all, k)
	}
	m, err := train.Compile(net, d, opt, s.loss, append(all, opts...)...)
	if err != nil {
		return nil, s.blame(err)
	}
	return m, s.load(m)
}
