package nn

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
)

// LayerOf makes a layer from its class, name ("" for none yet) and configuration, as Layer.Config gives it; nil is empty. Fields that are missing
// have their defaults. An unknown class or field, a value of the wrong type and one out of range are errors that name the layer, the field and what is known.
func LayerOf(class, name string, config json.RawMessage) (*Layer, error) {
	l, err := layerOf(class, name, config)
	if err != nil {
		return nil, fmt.Errorf("nn: %w", err)
	}
	return l, nil
}

func layerOf(class, name string, config json.RawMessage) (*Layer, error) {
	who := class
	if name != "" {
		who = fmt.Sprintf("%s (%s)", name, class)
	}
	empty := classes[class]
	if empty == nil {
		return nil, fmt.Errorf("layer %s: %w", who, unknown("class", class, Classes()))
	}
	k := empty()
	if err := configure(k, config); err != nil {
		return nil, fmt.Errorf("layer %s: %w", who, err)
	}
	l := layer(class, k, nil)
	return l.Named(name), nil
}

// configure sets the fields of k that config has, each checked on its own so that errors can name it.
func configure(k kind, config json.RawMessage) error {
	if len(config) == 0 {
		return k.check()
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(config, &given); err != nil {
		return fmt.Errorf("the configuration must be a JSON object: %w", err)
	}
	known := fields(reflect.TypeOf(k).Elem())
	for _, name := range sortedKeys(given) {
		if !slices.Contains(known, name) {
			return unknown("field", name, known)
		}
		one, err := json.Marshal(map[string]json.RawMessage{name: given[name]})
		if err == nil {
			err = json.Unmarshal(one, k)
		}
		if err != nil {
			var t *json.UnmarshalTypeError
			if errors.As(err, &t) {
				err = fmt.Errorf("want %s, not %s", described(t.Type), given[name])
			}
			return fmt.Errorf("field %q: %w (fields: %s)", name, err, strings.Join(known, ", "))
		}
	}
	return k.check()
}

func described(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a word"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list of whole numbers"
	}
	return t.String()
}

// fields are the names of a configuration's fields in JSON, those of embedded structs included.
func fields(t reflect.Type) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			out = append(out, fields(f.Type)...)
		} else if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && f.IsExported() {
			out = append(out, name)
		}
	}
	return out
}

// unknown is the error about a word that is none of those known, with the nearest.
func unknown(what, word string, known []string) error {
	hint := ""
	if n := nearest(word, known); n != "" {
		hint = fmt.Sprintf("; did you mean %q?", n)
	}
	list := strings.Join(known, ", ")
	if list == "" {
		list = "none"
	}
	return fmt.Errorf("unknown %s %q%s (known: %s)", what, word, hint, list)
}

// nearest is the known word at the least edit distance, case aside; "" if all are far.
func nearest(word string, known []string) string {
	if len(word) > 100 {
		return ""
	}
	best, least := "", min(max(2, len(word)/3), len(word)-1)+1
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, change, or swap with a neighbour (optimal string alignment: Damerau 1964, Levenshtein 1966).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		for j := range d[i] {
			switch {
			case i == 0 || j == 0:
				d[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				d[i][j] = d[i-1][j-1]
			default:
				d[i][j] = 1 + min(d[i-1][j-1], d[i-1][j], d[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], 1+d[i-2][j-2])
			}
		}
	}
	return d[len(a)][len(b)]
}

// Saved is a model as it is in JSON. Layers are listed in the order of their application. A layer that is applied again is listed again under its name. What an entry gives
// is referred to by the layer's name, of its second application by name:1, of its third by name:2.
type Saved struct {
	Class   string       `json:"class"` // Sequential or Functional
	Name    string       `json:"name"`
	Inputs  []SavedInput `json:"inputs,omitempty"`
	Layers  []SavedLayer `json:"layers"`
	Outputs []string     `json:"outputs,omitempty"`
}

// SavedInput is an input of a Functional model.
type SavedInput struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"` // without the batch
	DType string `json:"dtype"`
}

// SavedLayer is an application of a layer.
type SavedLayer struct {
	Class  string          `json:"class"`
	Name   string          `json:"name"`
	Config json.RawMessage `json:"config"`
	Inputs []string        `json:"inputs,omitempty"`

	Formats map[string]Format `json:"formats,omitempty"` // of its weights

	Value string `json:"-"` // what refers to its result
}

// MarshalJSON is the model's layers and how values flow between them, without weights. ModelOf reads it.
func (m *Model) MarshalJSON() ([]byte, error) {
	s, err := m.saved()
	if err != nil {
		return nil, err
	}
	return json.Marshal(s)
}

// Saved is the model as it is in JSON, for those who make another of its layers. Of a Sequential model it names values too: the input is "".
func (m *Model) Saved() (*Saved, error) {
	s, err := m.saved()
	if err != nil || m.chain == nil {
		return s, err
	}
	last := ""
	for i := range s.Layers {
		s.Layers[i].Inputs, last = []string{last}, s.Layers[i].Value
	}
	s.Outputs = []string{last}
	return s, nil
}

func (m *Model) saved() (*Saved, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	s := &Saved{Class: "Functional", Name: m.Name}
	times := map[*Layer]int{}
	entry := func(l *Layer) SavedLayer {
		times[l]++
		return SavedLayer{Class: l.class, Name: l.name, Config: l.Config(), Formats: l.formats, Value: reference(l.name, times[l]-1)}
	}
	if m.chain != nil {
		s.Class = "Sequential"
		for _, l := range m.chain {
			s.Layers = append(s.Layers, entry(l))
		}
		return s, nil
	}
	refs := map[*Value]string{}
	used := map[string]bool{}
	names := m.InputNames()
	for i, v := range m.inputs {
		refs[v] = names[i]
		s.Inputs = append(s.Inputs, SavedInput{names[i], append([]int{}, v.shape...), v.dt.String()})
	}
	for _, v := range m.order {
		if v.layer == nil {
			continue
		}
		e := entry(v.layer)
		for _, x := range v.from {
			e.Inputs = append(e.Inputs, refs[x])
		}
		refs[v] = e.Value
		s.Layers = append(s.Layers, e)
	}
	for _, r := range refs {
		if used[r] {
			return nil, fmt.Errorf("nn: two values of model %q are named %q; rename an input or a layer", m.Name, r)
		}
		used[r] = true
	}
	for _, v := range m.outputs {
		s.Outputs = append(s.Outputs, refs[v])
	}
	return s, nil
}

func reference(layer string, times int) string {
	if times == 0 {
		return layer
	}
	return fmt.Sprintf("%s:%d", layer, times)
}

// ModelOf makes a model of what MarshalJSON gave.
func ModelOf(data []byte) (*Model, error) {
	var s Saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("nn: model: %w", err)
	}
	return s.model()
}

// Model makes a model of what Model.Saved gave, whatever has become of its layers.
func (s *Saved) Model() (*Model, error) {
	c := *s
	if c.Class == "Sequential" { // its layers follow one another, whatever they say of their inputs
		c.Outputs = nil
	}
	return c.model()
}

func (s *Saved) model() (*Model, error) {
	layers := map[string]*Layer{}
	var chain []*Layer
	for i, e := range s.Layers {
		if e.Name == "" {
			return nil, fmt.Errorf("nn: model %q: layer %d (%s) has no name", s.Name, i, e.Class)
		}
		l, err := layerOf(e.Class, e.Name, e.Config)
		if err != nil {
			return nil, fmt.Errorf("nn: model %q: layer %d: %w", s.Name, i, err)
		}
		if old := layers[e.Name]; old != nil {
			if old.class != l.class || string(old.Config()) != string(l.Config()) {
				return nil, fmt.Errorf("nn: model %q: layers %q differ; one that is applied again must be the same", s.Name, e.Name)
			}
			l = old
		}
		l.formats = maps.Clone(e.Formats)
		layers[e.Name] = l
		chain = append(chain, l)
	}
	switch s.Class {
	case "Sequential":
		if len(s.Inputs)+len(s.Outputs) > 0 {
			return nil, fmt.Errorf("nn: model %q: a Sequential model lists neither inputs nor outputs", s.Name)
		}
		m := Sequential(chain...)
		m.Name = s.Name
		return m, m.check()
	case "Functional":
		return s.functional(chain)
	}
	return nil, fmt.Errorf("nn: model %q: %w", s.Name, unknown("class", s.Class, []string{"Sequential", "Functional"}))
}

func (s *Saved) functional(chain []*Layer) (*Model, error) {
	at := map[string]*Value{}
	place := func(name string, v *Value) error {
		if at[name] != nil {
			return fmt.Errorf("nn: model %q: two values are named %q", s.Name, name)
		}
		at[name] = v
		return nil
	}
	find := func(who string, names []string) ([]*Value, error) {
		out := make([]*Value, len(names))
		for i, n := range names {
			if out[i] = at[n]; out[i] == nil {
				return nil, fmt.Errorf("nn: model %q: %s: %w", s.Name, who, unknown("value", n, sortedKeys(at)))
			}
		}
		return out, nil
	}
	var inputs []*Value
	for _, in := range s.Inputs {
		dt, err := dtype.Parse(in.DType)
		if err == nil {
			err = shape.Of(in.Shape...).Check()
		}
		if err != nil {
			return nil, fmt.Errorf("nn: model %q: input %q: %w", s.Name, in.Name, err)
		}
		v := InputOf(in.Name, dt, in.Shape...)
		if err := place(in.Name, v); err != nil {
			return nil, err
		}
		inputs = append(inputs, v)
	}
	times := map[*Layer]int{}
	for i, l := range chain {
		from, err := find("layer "+l.name, s.Layers[i].Inputs)
		if err != nil {
			return nil, err
		}
		if err := place(reference(l.name, times[l]), l.On(from...)); err != nil {
			return nil, err
		}
		times[l]++
	}
	outputs, err := find("outputs", s.Outputs)
	if err != nil {
		return nil, err
	}
	m, err := Functional(inputs, outputs)
	if err != nil {
		return nil, err
	}
	m.Name = s.Name
	return m, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Defaults is the configuration of a class with nothing set, as JSON; nil of an unknown class.
func Defaults(class string) json.RawMessage {
	empty := classes[class]
	if empty == nil {
		return nil
	}
	j, err := json.Marshal(empty())
	if err != nil {
		return json.RawMessage("{}") // a configuration that is nothing before it is set
	}
	return j
}
