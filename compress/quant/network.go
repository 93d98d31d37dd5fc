package quant

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/train"
)

// network is a model's layers and how values flow, as a saved model has them.
type network struct {
	nn.Saved
	Layers []*entry
}

// entry is an application of a layer, and what becomes of it.
type entry struct {
	nn.SavedLayer
	original []string // its operands in the model as it was
	set      settings // its configuration
	kind     kind
	relu     bool
	after    nn.Activation // an activation that is left for a layer of its own, in floats
	norm     *entry        // a batch normalisation that is folded in
	gone     bool          // folded into another, or without effect
	why      string
}

// kind is what a layer is to bytes.
type kind int

const (
	floats kind = iota // computes on floats
	takes              // a product, or a sum of two: takes bytes, and gives bytes or floats
	passes             // moves bytes as they are
	joins              // moves bytes of several values, which must have one scale
)

// settings are the parts of configurations that matter here.
type settings struct {
	Units      int           `json:"units"`
	Filters    int           `json:"filters"`
	Kernel     any           `json:"kernel_size"`
	Strides    any           `json:"strides"`
	Padding    nn.Padding    `json:"padding"`
	Dilation   any           `json:"dilation_rate"`
	Groups     int           `json:"groups"`
	UseBias    bool          `json:"use_bias"`
	Activation nn.Activation `json:"activation"`
	Epsilon    float64       `json:"epsilon"`
	Center     bool          `json:"center"`
	Scale      any           `json:"scale"`
	MaxValue   *float64      `json:"max_value"`
	Slope      float64       `json:"negative_slope"`
	Threshold  float64       `json:"threshold"`
}

// networkOf reads a model. Names of values are unique there, since each layer's first result has its name.
func networkOf(m *nn.Model) (*network, error) {
	s, err := m.Saved()
	if err != nil {
		return nil, fmt.Errorf("quant: %w", err)
	}
	n := &network{Saved: *s}
	times := map[string]int{}
	for _, l := range s.Layers {
		e := &entry{SavedLayer: l}
		if err := json.Unmarshal(e.Config, &e.set); err != nil {
			return nil, fmt.Errorf("quant: layer %s: %w", e.Name, err)
		}
		times[e.Name]++
		n.Layers = append(n.Layers, e)
	}
	for _, e := range n.Layers {
		if times[e.Name] > 1 {
			e.why = "applied several times"
		}
	}
	return n, nil
}

// model is the network as a model again.
func (n *network) model() (*nn.Model, error) {
	s := n.Saved
	s.Layers = nil
	for _, e := range n.Layers {
		if !e.gone {
			s.Layers = append(s.Layers, e.SavedLayer)
		}
	}
	return s.Model()
}

// users are the applications that take a value; output says whether it is also a result of the model.
func (n *network) users(value string) (users []*entry, output bool) {
	for _, e := range n.Layers {
		if !e.gone && slices.Contains(e.Inputs, value) {
			users = append(users, e)
		}
	}
	return users, slices.Contains(n.Outputs, value)
}

// only is the one application that takes a value and nothing else does; nil if there is no such.
func (n *network) only(value string) *entry {
	if u, output := n.users(value); len(u) == 1 && !output && len(u[0].Inputs) == 1 && u[0].why == "" {
		return u[0]
	}
	return nil
}

// drop takes an application out: what used its result uses its operand.
func (n *network) drop(e *entry) {
	e.gone = true
	for _, u := range n.Layers {
		for i, v := range u.Inputs {
			if v == e.Value && !u.gone {
				u.Inputs[i] = e.Inputs[0]
			}
		}
	}
	for i, v := range n.Outputs {
		if v == e.Value {
			n.Outputs[i] = e.Inputs[0]
		}
	}
}

// products are the classes whose layers become products of bytes.
var products = []string{"Dense", "Conv1D", "Conv2D", "DepthwiseConv2D"}

// classify finds out what becomes of each layer. Batch normalisations and rectifiers behind a product, and rectifiers behind a sum, are folded into it; dropouts go.
func (n *network) classify(keep []string) {
	for _, e := range n.Layers {
		if e.gone || e.why != "" {
			continue
		}
		kept := matchesAny(keep, e.Name)
		switch {
		case e.Class == "Dropout":
			n.drop(e)
		case len(e.Formats) > 0:
			e.why = "has weights of few bits"
			for _, f := range e.Formats {
				if f.Sparse != "" {
					e.why = "is a sparse product"
				}
			}
		case slices.Contains(products, e.Class):
			if kept {
				e.why = "kept"
				continue
			}
			if e.Class == "Conv1D" && e.set.Padding == nn.Causal {
				e.why = "causal padding"
				continue
			}
			e.kind = takes
			n.fold(e)
		case e.Class == "Add" && len(e.Inputs) == 2 && e.Inputs[0] != e.Inputs[1] && !kept:
			e.kind = takes
			n.foldReLU(e)
		case slices.Contains([]string{"MaxPooling2D", "Flatten", "Reshape"}, e.Class):
			e.kind = passes
		case e.Class == "Concatenate":
			e.kind = joins
		default:
			if e.why = e.Class + " computes on floats"; kept {
				e.why = "kept"
			}
		}
	}
	// A sum takes bytes only where some product gives it some; else floats stay floats.
	for _, e := range n.Layers {
		if e.Class == "Add" && e.kind == takes && !slices.ContainsFunc(e.Inputs, func(v string) bool { return n.makes(v) }) {
			e.kind, e.why = floats, "adds floats"
			if e.relu { // folded: it gets a layer of its own
				e.relu, e.after = false, nn.ReLU
			}
		}
	}
}

// makes reports whether a value comes from a layer of bytes, perhaps through layers that move it.
func (n *network) makes(value string) bool {
	for _, e := range n.Layers {
		if e.gone || e.Value != value {
			continue
		}
		switch e.kind {
		case takes:
			return e.after == ""
		case passes:
			return n.makes(e.Inputs[0])
		case joins:
			return slices.ContainsFunc(e.Inputs, n.makes)
		}
	}
	return false
}

func (n *network) fold(e *entry) {
	linear := e.set.Activation == "" || e.set.Activation == nn.Linear
	if u := n.only(e.Value); linear && u != nil && u.Class == "BatchNormalization" {
		e.norm = u
		n.drop(u)
	}
	switch {
	case linear:
		n.foldReLU(e)
	case e.set.Activation == nn.ReLU:
		e.relu = true
	default:
		e.after = e.set.Activation
	}
}

func (n *network) foldReLU(e *entry) {
	u := n.only(e.Value)
	if u == nil {
		return
	}
	plain := u.set.MaxValue == nil && u.set.Slope == 0 && u.set.Threshold == 0
	if u.Class == "ReLU" && plain || u.Class == "Activation" && u.set.Activation == nn.ReLU {
		e.relu = true
		n.drop(u)
	}
}

// flow decides which values are bytes, and which share a scale: groups gives each such value the name of its group.
func (n *network) flow() (groups map[string]string) {
	by := map[string]*entry{}
	bytes := map[string]bool{}
	for _, e := range n.Layers {
		if !e.gone {
			by[e.Value] = e
			bytes[e.Value] = e.kind != floats && e.after == ""
		}
	}
	for changed := true; changed; {
		changed = false
		no := func(v string) {
			if bytes[v] {
				bytes[v], changed = false, true
			}
		}
		for v := range by {
			users, output := n.users(v)
			if output {
				no(v)
			}
			for _, u := range users {
				if u.kind == floats || (u.kind == passes || u.kind == joins) && !bytes[u.Value] {
					no(v)
				}
			}
			if len(users) == 0 {
				no(v)
			}
		}
		for _, e := range by {
			if e.kind == passes || e.kind == joins {
				for _, v := range e.Inputs {
					if !bytes[v] {
						no(e.Value)
					}
				}
			}
		}
	}
	groups = map[string]string{}
	for v := range by {
		if bytes[v] {
			groups[v] = v
		}
	}
	for changed := true; changed; { // the least name of those that share a scale
		changed = false
		for _, e := range by {
			if e.kind != passes && e.kind != joins || !bytes[e.Value] {
				continue
			}
			least := groups[e.Value]
			for _, v := range e.Inputs {
				least = min(least, groups[v])
			}
			for _, v := range append(slices.Clone(e.Inputs), e.Value) {
				if groups[v] != least {
					groups[v], changed = least, true
				}
			}
		}
	}
	return groups
}

// check finds patterns that match nothing.
func (n *network) check(keep []string) error {
	var names []string
	for _, e := range n.Layers {
		names = append(names, e.Name)
	}
	if err := train.Unmatched("layer", keep, names); err != nil {
		return fmt.Errorf("quant: keep: %w", err)
	}
	return nil
}

// nothing says why no layer can be quantized.
func (n *network) nothing() error {
	for _, e := range n.Layers {
		if strings.HasPrefix(e.Class, "Quantized") {
			return fmt.Errorf("quant: layers are of bytes already (%s is a %s); give the model of floats that this one was made of", e.Name, e.Class)
		}
	}
	if i := slices.IndexFunc(n.Layers, func(e *entry) bool { return e.why == "kept" }); i >= 0 {
		return fmt.Errorf("quant: all layers that could be quantized are kept, such as %s; nothing is left", n.Layers[i].Name)
	}
	return errors.New("quant: the model has no Dense or Conv2D layer that could be quantized")
}
