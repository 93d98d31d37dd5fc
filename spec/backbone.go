package spec

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// backbone is a trained model that begins this one:
//
//   - Backbone: {from: all-minilm-l6-v2, until: pooled, adapters: 32}
//   - Backbone: {from: all-minilm-l6-v2, until: pooled, fresh: true}
type backbone struct {
	node     *yaml.Node
	from     string
	until    string // the last layer that is taken; "": all
	adapters int    // values between the two layers of an adapter; 0: none
	fresh    bool   // its layers and tokenizer alone: weights begin anew

	path  string
	state *checkpoint.State
	net   *nn.Model
}

// readBackbone reads "Backbone: NAME" or "Backbone: {from: NAME, …}".
func (s *Spec) readBackbone(n *yaml.Node) (layerSpec, error) {
	l := layerSpec{line: n.Line, class: "Backbone"}
	b := &backbone{node: n}
	v := n.Content[1]
	if v.Kind == yaml.MappingNode {
		r, err := mapping(s.file, "Backbone", v)
		if err != nil {
			return l, err
		}
		if err := errors.Join(r.into("from", &b.from), r.into("until", &b.until), r.into("adapters", &b.adapters), r.into("fresh", &b.fresh), r.into("name", &l.name), r.into("inputs", &l.inputs), r.done()); err != nil {
			return l, err
		}
	} else {
		b.from = v.Value
	}
	switch {
	case b.from == "":
		return l, at(s.file, n, "Backbone takes the trained model to begin with, a run or a model file: \"- Backbone: all-minilm-l6-v2\"")
	case b.adapters < 0:
		return l, at(s.file, n, "Backbone: adapters %d must not be negative", b.adapters)
	}
	if s.backbone() != nil {
		return l, at(s.file, n, "a model begins with one Backbone, this has two")
	}
	l.backbone = b
	return l, nil
}

// open reads the trained model, once.
func (b *backbone) open(s *Spec) error {
	if b.state != nil {
		return nil
	}
	path, err := s.resolve(b.node, b.from)
	if err != nil {
		return err
	}
	state, err := transfer.State(path)
	if err != nil {
		return at(s.file, b.node, "Backbone: %w", err)
	}
	net, err := nn.ModelOf(state.Sections[checkpoint.SectionModel])
	if err == nil && b.until != "" {
		net, err = net.Until(b.until)
	}
	if err == nil && b.adapters > 0 {
		net, err = net.WithAdapters(b.adapters)
	}
	if err != nil {
		return at(s.file, b.node, "Backbone: %w", err)
	}
	if b.fresh {
		for _, t := range state.Tensors {
			if dt := t.Value.DType(); dt.Size() == 1 {
				return at(s.file, b.node, "Backbone: fresh: %s keeps %s as %s, and weights of few bits are not trained: name the model of floats", path, t.Name, dt)
			}
		}
	}
	b.path, b.state, b.net = path, state, net
	return nil
}

// backbone is that of the model, nil without.
func (s *Spec) backbone() *backbone {
	for _, l := range s.layers {
		if l.backbone != nil {
			return l.backbone
		}
	}
	return nil
}

// Like is what the data should be like where the model begins with a trained one: it then has that one's tokenizer. It is for catalog.OpenLike.
func (s *Spec) Like() (data.Spec, error) {
	b := s.backbone()
	if b == nil {
		return data.Spec{}, nil
	}
	if err := b.open(s); err != nil {
		return data.Spec{}, err
	}
	d, err := train.SpecOf(b.state)
	if err != nil {
		return data.Spec{}, at(s.file, b.node, "Backbone: %w", err)
	}
	return data.Spec{Tokenizer: d.Tokenizer}, nil
}

// apply puts the trained model into the one that is being made: on the inputs of its names, or on those that the specification names.
func (b *backbone) apply(s *Spec, l layerSpec, by map[string]*nn.Value, last *nn.Value) (*nn.Value, error) {
	if err := b.open(s); err != nil {
		return nil, err
	}
	var args []*nn.Value
	names := l.inputs
	if names == nil {
		names = b.net.InputNames()
	}
	for _, n := range names {
		v := by[n]
		if v == nil {
			return nil, at(s.file, b.node, "Backbone: the trained model takes %q, and the data has no input of that name: say with inputs which values take the place of %s", n, strings.Join(names, ", "))
		}
		args = append(args, v)
	}
	if names == nil {
		args = []*nn.Value{last}
	}
	out, err := b.net.On(args...)
	if err != nil {
		return nil, at(s.file, b.node, "Backbone: %w", err)
	}
	if len(out) != 1 {
		return nil, at(s.file, b.node, "Backbone: the trained model has %d outputs: say with until which layer to end at", len(out))
	}
	return out[0], nil
}

// weights gives the model's parameters the values of the trained one, unless they begin anew.
func (b *backbone) weights(s *Spec, m *train.Model) error {
	if b.fresh {
		return nil
	}
	var own []string
	for _, l := range b.net.Layers() {
		own = append(own, l.Name())
	}
	taken, left, err := m.Take(b.state, b.path, own...)
	if err != nil {
		return at(s.file, b.node, "Backbone: %w", err)
	}
	for _, name := range left {
		belongs := slices.ContainsFunc(own, func(l string) bool { return train.Matches(l, name) })
		if belongs && !strings.Contains(name, "/adapter/") {
			return at(s.file, b.node, "Backbone: %w", fmt.Errorf("%s has no weights for %s of this shape; position embeddings, for instance, have as many rows as the trained model", b.path, name))
		}
	}
	s.Taken, s.Left = append(s.Taken, taken...), left
	return nil
}
