// Package structure makes trained models smaller by whole channels, filters, units, attention heads, feed-forward units and layers. What comes out is a dense model of ordinary layers.
//
// # Terminology
//
// An Axis is a number of units that stand or fall together wherever they appear: the filters of a convolution are also the channels of the batch normalisation behind it, of what a residual sum adds to them, and
// inputs of whatever takes the sum. Of makes the units of an axis the analysis finds all parameters (dependency analysis, as in DepGraph, arXiv:2301.12900, here on layers and their values). An axis of which one end
// is the model's input or result, or a layer that looks at all features together, is fixed.
//
// A Block is a layer, or a residual branch, that can be taken out whole, since what it gives has the shape of what it takes. A Pooled convolution can take the strides of the pooling behind it.
package structure

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// Axis is units that are removed together wherever they appear.
type Axis struct {
	// Name is that of the first layer that makes the units; of those within a layer with ":heads" or ":hidden" behind it.
	Name  string
	Units int
	// Makes and Takes are the layers whose weights give the units and take them.
	Makes, Takes []string
	// Shares is, for each layer that the units appear in, the share of its weights that one unit is; of layers without weights, of its features.
	Shares map[string]float64

	places []place
}

// place is where the units of an axis appear in a parameter.
type place struct {
	param string
	axis  int
	unit  []int // for each index of the axis the unit, -1: of another Axis
	role  role
}

type role int

const (
	made   role = iota // weights that give units
	taken              // weights that take them
	offset             // biases, and what else goes along
	scale              // factors of a batch normalisation, whose moving variance is beside
)

// Block is what can be taken out whole.
type Block struct {
	Name   string   // of the layer, or of the sum at a residual branch's end
	Layers []string // that go with it
}

// Dependencies is what hangs together in a model.
type Dependencies struct {
	Axes   []*Axis
	Blocks []Block
	Pooled []Pooled
	// Fixed says of layers whose outputs cannot be removed why.
	Fixed map[string]string

	net *network
}

// Axis is the axis of that name, nil of an unknown one.
func (d *Dependencies) Axis(name string) *Axis {
	for _, a := range d.Axes {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// why is the error about an axis that is not there.
func (d *Dependencies) why(name string) error {
	if w, ok := d.Fixed[name]; ok {
		return fmt.Errorf("structure: layer %q cannot lose outputs: %s", name, w)
	}
	var names []string
	for _, a := range d.Axes {
		names = append(names, a.Name)
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	for _, a := range d.Axes {
		if slices.Contains(a.Makes, name) {
			return fmt.Errorf("structure: the outputs of layer %q hang together with those of %q: narrow that", name, a.Name)
		}
	}
	return fmt.Errorf("structure: layer %q cannot lose outputs; those that can: %s", name, strings.Join(names, ", "))
}

// network is a model's layers and how values flow, as a saved model has them.
type network struct {
	nn.Saved
	Layers []*entry
}

// entry is an application of a layer.
type entry struct {
	nn.SavedLayer
	set settings
	in  []graph.Type // operands, with a batch of 1
	out []int        // the shape of the result, without the batch
}

// settings are the parts of configurations that matter here.
type settings struct {
	Units      int           `json:"units"`
	Groups     int           `json:"groups"`
	Multiplier int           `json:"depth_multiplier"`
	Activation nn.Activation `json:"activation"`
	Axis       int           `json:"axis"`
	Epsilon    float64       `json:"epsilon"`
	Heads      int           `json:"num_heads"`
	KVHeads    int           `json:"num_key_value_heads"`
	ALiBi      bool          `json:"alibi"`
	Gated      bool          `json:"gated"`
	Hidden     int           `json:"intermediate_dim"`
	KeyDim     int           `json:"key_dim"`
	Target     []int         `json:"target_shape"`
	KeepDims   bool          `json:"keepdims"`
	Kernel     any           `json:"kernel_size"` // a number, or one for each axis; so are the next
	Strides    any           `json:"strides"`
	Dilation   any           `json:"dilation_rate"`
	Pool       any           `json:"pool_size"`
	Padding    nn.Padding    `json:"padding"`
}

func networkOf(m *train.Model) (*network, error) {
	s, err := m.Net.Saved()
	if err != nil {
		return nil, fmt.Errorf("structure: %w", err)
	}
	n := &network{Saved: *s}
	for _, l := range s.Layers {
		e := &entry{SavedLayer: l}
		// Fields of other types under the same names belong to classes that are not looked at.
		_ = json.Unmarshal(e.Config, &e.set)
		n.Layers = append(n.Layers, e)
	}
	at := 0
	values := map[string]graph.Type{}
	g, err := graph.Build(func(g *graph.Graph) {
		var types []graph.Type
		for _, f := range m.Spec.Inputs {
			types = append(types, graph.Type{DType: f.DType, Shape: f.Shape})
		}
		types, err := m.Net.Inputs(1, types)
		if err != nil {
			g.Fail("model", nil, "%v", err)
		}
		var x []*graph.Node
		for i, t := range types {
			x = append(x, g.Input(fmt.Sprint("x", i), t))
		}
		y := m.Net.Call(&nn.Call{G: g, Tap: func(_ *nn.Layer, in []*graph.Node) {
			for i, v := range in {
				n.Layers[at].in = append(n.Layers[at].in, v.Type())
				values[n.Layers[at].Inputs[i]] = v.Type()
			}
			at++
		}}, x)
		for i, v := range y {
			values[n.Outputs[i]] = v.Type()
			g.Output(fmt.Sprint("y", i), v)
		}
	})
	if err != nil || g == nil {
		return nil, err
	}
	for _, e := range n.Layers {
		if t, ok := values[e.Value]; ok {
			e.out = t.Shape[1:]
		}
	}
	return n, nil
}

// model is the network as a model again.
func (n *network) model() (*nn.Model, error) {
	s := n.Saved
	s.Layers = nil
	for _, e := range n.Layers {
		s.Layers = append(s.Layers, e.SavedLayer)
	}
	return s.Model()
}

// maker is the entry that gives a value, nil of an input.
func (n *network) maker(value string) *entry {
	for _, e := range n.Layers {
		if e.Value == value {
			return e
		}
	}
	return nil
}

// bound is an axis of a parameter whose indices are atoms.
type bound struct {
	param string
	axis  int
}

// analysis finds out which atoms are the same. An atom is one feature of one value, before it is found to be the same as others.
type analysis struct {
	n      *network
	shapes map[string]shape.Shape // of parameters

	same    []int // union-find over atoms: the parent
	axis    []int // of each atom, its axis
	axes    []int // union-find over axes
	names   []string
	fixed   map[int]string // axes, by root, and why
	values  map[string][]int
	bounds  map[bound][]int
	roles   map[bound]role
	order   []bound
	through map[string]map[int]int // layers without weights: atoms' roots and how often
	layer   *entry
}

// Analyze finds the axes and blocks of a model.
func Analyze(m *train.Model) (*Dependencies, error) {
	n, err := networkOf(m)
	if err != nil {
		return nil, err
	}
	a := &analysis{n: n, shapes: map[string]shape.Shape{}, fixed: map[int]string{}, values: map[string][]int{}, bounds: map[bound][]int{}, roles: map[bound]role{}, through: map[string]map[int]int{}}
	for _, p := range m.Params() {
		a.shapes[p.Name] = p.Type.Shape
	}
	for _, e := range n.Layers {
		a.layer = e
		in := make([][]int, len(e.in))
		for i, t := range e.in {
			v := a.values[e.Inputs[i]]
			if v == nil { // an input of the model
				w := 1
				if len(t.Shape) > 1 {
					w = t.Shape[len(t.Shape)-1]
				}
				v = a.fresh("input", w)
				a.fix("it is the model's input", v)
				a.values[e.Inputs[i]] = v
			}
			in[i] = v
		}
		a.values[e.Value] = a.on(e, in)
	}
	for _, v := range n.Outputs {
		a.fix("it is the model's result", a.values[v])
	}
	d := &Dependencies{Fixed: map[string]string{}, net: n}
	a.collect(d)
	d.Blocks, d.Pooled = n.blocks(), n.pooled()
	return d, nil
}

// fresh are n new atoms of a new axis.
func (a *analysis) fresh(name string, n int) []int {
	at := len(a.axes)
	a.axes, a.names = append(a.axes, at), append(a.names, name)
	out := make([]int, n)
	for i := range out {
		out[i] = len(a.same)
		a.same, a.axis = append(a.same, out[i]), append(a.axis, at)
	}
	return out
}

func root(parents []int, i int) int {
	for parents[i] != i {
		parents[i] = parents[parents[i]]
		i = parents[i]
	}
	return i
}

// join makes atoms the same, one by one.
func (a *analysis) join(x, y []int) {
	if len(x) != len(y) { // shapes that broadcast
		a.fix("it is joined with values of another width", x, y)
		return
	}
	for i := range x {
		p, q := root(a.same, x[i]), root(a.same, y[i])
		a.same[max(p, q)] = min(p, q)
		p, q = root(a.axes, a.axis[x[i]]), root(a.axes, a.axis[y[i]])
		lo, hi := min(p, q), max(p, q)
		a.axes[hi] = lo
		if why, ok := a.fixed[hi]; ok && a.fixed[lo] == "" {
			a.fixed[lo] = why
		}
	}
}

// fix says that atoms stay.
func (a *analysis) fix(why string, vs ...[]int) {
	for _, v := range vs {
		for _, x := range v {
			if r := root(a.axes, a.axis[x]); a.fixed[r] == "" {
				a.fixed[r] = why
			}
		}
	}
}

// bind says which atoms the indices of a parameter's axis are; an axis that is bound already has the same ones. Parameters that are not there are passed over.
func (a *analysis) bind(param string, axis int, r role, atoms []int) {
	s, ok := a.shapes[a.layer.Name+"/"+param]
	if !ok {
		return
	}
	if axis < 0 {
		axis += len(s)
	}
	if s[axis] != len(atoms) {
		a.fix(fmt.Sprintf("%s/%s is not laid out as expected", a.layer.Name, param), atoms)
		return
	}
	k := bound{a.layer.Name + "/" + param, axis}
	if old := a.bounds[k]; old != nil {
		a.join(old, atoms)
		return
	}
	a.bounds[k], a.roles[k] = atoms, r
	a.order = append(a.order, k)
}

// outputs are the atoms of an axis of a parameter, new ones if it has none yet.
func (a *analysis) outputs(param string, axis int, name string) []int {
	s := a.shapes[a.layer.Name+"/"+param]
	if axis < 0 {
		axis += len(s)
	}
	k := bound{a.layer.Name + "/" + param, axis}
	if a.bounds[k] == nil {
		a.bounds[k], a.roles[k] = a.fresh(name, s[axis]), made
		a.order = append(a.order, k)
	}
	return a.bounds[k]
}

// collect makes axes of what was found.
func (a *analysis) collect(d *Dependencies) {
	by := map[int]*Axis{} // by root of axes
	unit := map[int]int{} // of roots of atoms
	totals := map[string]float64{}
	for p, s := range a.shapes {
		totals[a.owner(p)] += float64(s.Size())
	}
	for at := range a.axes {
		r := root(a.axes, at)
		if a.names[at] == "input" {
			continue
		}
		if why, ok := a.fixed[r]; ok {
			if d.Fixed[a.names[at]] == "" {
				d.Fixed[a.names[at]] = why
			}
			continue
		}
		if by[r] == nil {
			by[r] = &Axis{Name: a.names[at], Shares: map[string]float64{}}
			d.Axes = append(d.Axes, by[r])
		}
	}
	for x := range a.same {
		if ax := by[root(a.axes, a.axis[x])]; ax != nil && root(a.same, x) == x {
			unit[x] = ax.Units
			ax.Units++
		}
	}
	for _, k := range a.order {
		units := map[*Axis][]int{}
		for i, x := range a.bounds[k] {
			ax := by[root(a.axes, a.axis[x])]
			if ax == nil {
				continue
			}
			if units[ax] == nil {
				units[ax] = slices.Repeat([]int{-1}, len(a.bounds[k]))
			}
			units[ax][i] = unit[root(a.same, x)]
		}
		layer := a.owner(k.param)
		for ax, u := range units {
			ax.places = append(ax.places, place{k.param, k.axis, u, a.roles[k]})
			n := 0
			for _, v := range u {
				if v >= 0 {
					n++
				}
			}
			if r := a.roles[k]; r == made || r == taken {
				s := a.shapes[k.param]
				ax.Shares[layer] += float64(s.Size()) * float64(n) / float64(s[k.axis]) / float64(ax.Units) / totals[layer]
				to := map[role]*[]string{made: &ax.Makes, taken: &ax.Takes}[r]
				if !slices.Contains(*to, layer) {
					*to = append(*to, layer)
				}
			}
		}
	}
	for layer, atoms := range a.through {
		width := 0
		for _, n := range atoms {
			width += n
		}
		for x, n := range atoms {
			if ax := by[root(a.axes, a.axis[x])]; ax != nil && ax.Shares[layer] < 1/float64(ax.Units) {
				ax.Shares[layer] += float64(n) / float64(width) / float64(ax.Units)
			}
		}
	}
	for _, ax := range d.Axes {
		for layer, s := range ax.Shares {
			ax.Shares[layer] = min(s, 1/float64(ax.Units))
		}
	}
	d.Axes = slices.DeleteFunc(d.Axes, func(x *Axis) bool { return x.Units < 2 || len(x.Takes) == 0 })
}

// owner is the layer that a parameter belongs to.
func (a *analysis) owner(param string) string {
	best := ""
	for _, e := range a.n.Layers {
		if strings.HasPrefix(param, e.Name+"/") && len(e.Name) > len(best) {
			best = e.Name
		}
	}
	return best
}

// pass books a layer without weights that features go through.
func (a *analysis) pass(v []int) []int {
	by := a.through[a.layer.Name]
	if by == nil {
		by = map[int]int{}
		a.through[a.layer.Name] = by
	}
	for _, x := range v {
		by[x]++
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
