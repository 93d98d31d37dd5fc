package train

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// SectionSpec is the part of a saved model that describes the data it is for.
const SectionSpec = "spec"

// describe adds what is needed to build the model again: its layers, the data it is for, and how it was compiled.
func (m *Model) describe(sections map[string]json.RawMessage) error {
	for name, v := range map[string]any{
		checkpoint.SectionModel:  m.Net,
		SectionSpec:              m.Spec,
		checkpoint.SectionConfig: m.Config(),
	} {
		j, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("train: %s of the model: %w", name, err)
		}
		sections[name] = j
	}
	return nil
}

// Config is how a model was compiled.
type Config struct {
	Optimizer  string    `json:"optimizer"`
	Loss       string    `json:"loss"`
	Metrics    []string  `json:"metrics"`
	Seed       uint64    `json:"seed"`
	Accumulate int       `json:"accumulate"`
	Precision  nn.Policy `json:"precision,omitempty"`
	// Xent are the settings of a cross-entropy of class numbers.
	Xent op.XentAttrs `json:"cross_entropy"`
}

// Config says how the model was compiled.
func (m *Model) Config() Config {
	return Config{Optimizer: m.opt.Name, Loss: m.loss.Name, Metrics: m.metricNames(), Seed: m.seed, Accumulate: m.accumulate, Precision: m.precision, Xent: m.loss.xent}
}

// Describe is what a saved model says beside its weights, as one indented JSON object: "model" (its layers), "spec" (the data it is for) and "config" (how it was compiled).
func (m *Model) Describe() ([]byte, error) {
	sections := map[string]json.RawMessage{}
	if err := m.describe(sections); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(sections, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("train: %w", err)
	}
	return append(text, '\n'), nil
}

func (m *Model) metricNames() []string {
	var out []string
	for _, k := range m.metrics {
		out = append(out, k.Name)
	}
	return out
}

// Save writes the model to a file: layers, weights, optimizer state. The file is in the safetensors format, so other programs can read the weights too.
// It is replaced atomically.
func (m *Model) Save(path string) error {
	s, err := m.saved()
	if err != nil {
		return err
	}
	return checkpoint.Save(path, s)
}

// SavePlain is Save without the optimizer's state, which often takes twice the weights' bytes and which a model that is not trained on has no use for. PlainSize is about the file's size.
func (m *Model) SavePlain(path string) error {
	s, err := m.packed()
	if err != nil {
		return err
	}
	return checkpoint.Save(path, s)
}

// SavePacked is Save in few bytes, without loss: zeros, weights that share values, and bytes are coded by how often they occur (package format/packed), and the optimizer's state is left out. Load, and every command that
// takes a model file, reads it; other programs do not.
func (m *Model) SavePacked(path string) error {
	s, err := m.packed()
	if err != nil {
		return err
	}
	return checkpoint.SavePacked(path, s)
}

// PackedSize is the size in bytes of the file that SavePacked writes, and of the same without packing: both without the optimizer's state.
func (m *Model) PackedSize() (packed, plain int64, err error) {
	s, err := m.packed()
	if err != nil {
		return 0, 0, err
	}
	var n counter
	if err := checkpoint.WritePacked(&n, s); err != nil {
		return 0, 0, fmt.Errorf("train: %w", err)
	}
	return int64(n), plainSize(s), nil
}

// PlainSize is the size of the file without packing alone, which takes no work; SavePlain's has names and offsets of tensors beside it.
func (m *Model) PlainSize() (int64, error) {
	s, err := m.packed()
	if err != nil {
		return 0, err
	}
	return plainSize(s), nil
}

func plainSize(s *checkpoint.State) int64 {
	var n int64
	for _, t := range s.Tensors {
		n += int64(len(t.Value.Bytes()))
	}
	for _, text := range s.Sections {
		n += int64(len(text))
	}
	return n
}

type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

func (m *Model) packed() (*checkpoint.State, error) {
	s, err := m.saved()
	if err != nil {
		return nil, err
	}
	s.Tensors = slices.DeleteFunc(s.Tensors, func(t safetensors.Named) bool {
		return !slices.ContainsFunc(m.params, func(p nn.Param) bool { return p.Name == t.Name })
	})
	return s, nil
}

func (m *Model) saved() (*checkpoint.State, error) {
	if len(m.wraps) > 0 {
		return nil, errors.New("train: the model has values in place of parameters (masks, low-rank changes): Merge makes them permanent, and then it can be saved")
	}
	s := &checkpoint.State{Score: math.NaN(), Sections: map[string]json.RawMessage{}}
	var err error
	if s.Tensors, err = m.tensors(false); err != nil {
		return nil, err
	}
	return s, m.describe(s.Sections)
}

// Load reads a model that Save or Checkpoints has written. It predicts and evaluates as the saved one did; to train on, the optimizer has its default settings
// unless opts say otherwise. A model of which ranks have parts (Parallel.Tensor) and that is for prediction alone (Fixed) reads no more of the file than its part, and cannot verify the checksum.
func Load(path string, opts ...Option) (*Model, error) {
	var asked Model // what the options ask for
	for _, o := range opts {
		o.compile(&asked)
	}
	if asked.fixed && asked.parallel.copies() > 1 {
		packed, err := checkpoint.Packed(path)
		if err != nil {
			return nil, err
		}
		if !packed {
			return loadPart(path, opts)
		}
	}
	s, err := checkpoint.Load(path)
	if err != nil {
		return nil, err
	}
	m, err := FromState(s, opts...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// loadPart is Load of this rank's part.
func loadPart(path string, opts []Option) (*Model, error) {
	f, err := checkpoint.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	types := map[string]graph.Type{}
	for _, t := range f.Infos() {
		types[t.Name] = graph.Type{DType: t.DType, Shape: t.Shape}
	}
	m, err := fromSections(&f.State, append(slices.Clone(opts), option(func(m *Model) { m.blank = true })))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := m.checkHeld(&f.State, slices.Collect(maps.Keys(types))); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for _, v := range m.kept() {
		stored, ok := types[v.Name]
		if !ok {
			continue
		}
		want := v.Type
		axis, part := m.axis(v.Name)
		if part {
			want = m.team.whole[v.Name]
		}
		if !stored.Equal(want) {
			return nil, fmt.Errorf("%s: train: variable %q is %v in the file, but %v in the model that it describes: copy or make the file again", path, v.Name, stored, want)
		}
		var t *tensor.Tensor
		if part {
			lo, hi := m.team.split.Part(want.Shape[axis], m.team.split.Rank)
			t, err = f.Part(v.Name, axis, lo, hi)
		} else {
			t, err = f.Read(v.Name)
		}
		if err == nil {
			err = m.state.Set(v.Name, t)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: train: %w", path, err)
		}
	}
	return m, nil
}

// SpecOf is what the data of a saved model is like.
func SpecOf(s *checkpoint.State) (data.Spec, error) {
	var spec data.Spec
	if err := json.Unmarshal(s.Sections[SectionSpec], &spec); err != nil {
		return spec, fmt.Errorf("train: section %s: %w", SectionSpec, err)
	}
	for _, fs := range [][]data.Field{spec.Inputs, spec.Targets} {
		for i := range fs {
			if fs[i].Shape == nil {
				fs[i].Shape = shape.Shape{}
			}
			if err := fs[i].Shape.Check(); err != nil || !fs[i].DType.Valid() {
				return spec, fmt.Errorf("train: section %s: field %q: %v%v is no type", SectionSpec, fs[i].Name, fs[i].DType, fs[i].Shape)
			}
		}
	}
	if n := spec.Norm; n != nil {
		if err := n.Fits(spec); err != nil {
			return spec, fmt.Errorf("train: section %s: %w", SectionSpec, err)
		}
	}
	return spec, nil
}

// FromState makes the model that a checkpoint holds.
func FromState(s *checkpoint.State, opts ...Option) (*Model, error) {
	m, err := fromSections(s, opts)
	if err != nil {
		return nil, err
	}
	for _, v := range m.kept() {
		if m.zeroed(v.Name) { // begins anew
			continue
		}
		if t := s.Tensor(v.Name); t != nil {
			if err := m.put(v.Name, t); err != nil {
				return nil, fmt.Errorf("train: %w", err)
			}
		}
	}
	var names []string
	for _, t := range s.Tensors {
		names = append(names, t.Name)
	}
	return m, m.checkHeld(s, names)
}

// checkHeld reports a checkpoint that has not all of the model's parameters, or has values in place of them.
func (m *Model) checkHeld(s *checkpoint.State, names []string) error {
	held := map[string]bool{}
	for _, n := range names {
		held[n] = true
	}
	for _, p := range m.params {
		if !held[p.Name] {
			return fmt.Errorf("train: the weights of %s are missing", p.Name)
		}
	}
	if s.Sections[SectionProgress] == nil { // Save has merged what wrappers put in place of parameters
		return nil
	}
	declared := map[string]bool{}
	for _, v := range m.declared {
		declared[v.Name] = true
	}
	for _, n := range names {
		if !forTraining(n) && !declared[n] && !m.has(n) && !m.away(n) {
			return fmt.Errorf("train: %s belongs to values in place of parameters (masks, low-rank changes), in the middle of a training: load it with the same Wrapped, or train to the end, where they are merged", n)
		}
	}
	return nil
}

// fromSections makes the model that a checkpoint describes.
func fromSections(s *checkpoint.State, opts []Option) (*Model, error) {
	net, err := nn.ModelOf(s.Sections[checkpoint.SectionModel])
	if err != nil {
		return nil, err
	}
	spec, err := SpecOf(s)
	if err != nil {
		return nil, err
	}
	var c Config
	if err := json.Unmarshal(s.Sections[checkpoint.SectionConfig], &c); err != nil {
		return nil, fmt.Errorf("train: section %s: %w", checkpoint.SectionConfig, err)
	}
	loss, ok := Losses[c.Loss]
	if !ok {
		return nil, fmt.Errorf("train: unknown loss %q", c.Loss)
	}
	if c.Xent != (op.XentAttrs{}) && c.Loss == SparseCategoricalCrossentropy.Name {
		loss = SparseCategorical(func(o *op.XentAttrs) { *o = c.Xent })
	}
	opt, err := optim.ByName(c.Optimizer)
	if err != nil {
		return nil, err
	}
	all := []Option{Seed(c.Seed), Accumulate(max(1, c.Accumulate)), DTypePolicy(c.Precision)}
	for _, name := range c.Metrics {
		k, ok := Metrics[name]
		if !ok {
			return nil, fmt.Errorf("train: unknown metric %q", name)
		}
		all = append(all, k)
	}
	return Compile(net, spec, opt, loss, append(all, opts...)...)
}

// forTraining reports whether a variable of a checkpoint is one that a model can predict without.
func forTraining(name string) bool {
	if _, carried := nn.Carried(name); carried || name == seedVar || name == shareVar {
		return true
	}
	return slices.ContainsFunc([]string{optimizerPrefix, accumulatedPrefix, outerPrefix, teacherPrefix}, func(p string) bool { return strings.HasPrefix(name, p) })
}
