package xla

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
)

// program is a graph as StableHLO, and what is needed to call it. Its arguments are the graph's inputs and then its variables; its results are the updates, then the outputs, and then, of a
// program that looks for values that are not finite, one Boolean for each of checked.
type program struct {
	text    string
	sharded []bool        // by input: it is cut into equal parts along its first axis, one for each device
	checked []*graph.Node // nodes whose results must be finite
}

// sharding says, in the words of Shardy (github.com/openxla/shardy), how a value is spread over devices: cut along its first axis, or the same on each.
func sharding(cut bool, rank, devices int) string {
	switch {
	case devices == 1:
		return ""
	case !cut:
		return "sdy.sharding = #sdy.sharding<@devices, [" + strings.TrimPrefix(strings.Repeat(", {}", rank), ", ") + "]>"
	}
	return `sdy.sharding = #sdy.sharding<@devices, [{"batch"}` + strings.Repeat(", {}", rank-1) + "]>"
}

// lower writes g. Over several devices, inputs whose first axis they can share (the examples of a batch) are cut along it and everything else is the same on each: what that means for the nodes
// between, XLA's partitioner finds out, and puts sums over devices (of gradients, of the statistics of a batch) where they are needed. The program means the same as on one device.
func lower(g *graph.Graph, devices int, finite bool) (p *program, err error) {
	p = &program{}
	b := &stablehlo.Builder{}
	vals := make([][]stablehlo.Value, len(g.Nodes()))
	for _, n := range g.Inputs() {
		t := n.Type()
		cut := devices > 1 && len(t.Shape) > 0 && t.Shape[0] > 0 && t.Shape[0]%devices == 0
		p.sharded = append(p.sharded, cut)
		vals[n.ID()] = []stablehlo.Value{b.Arg(stablehlo.Of(t.DType), t.Shape, sharding(cut, len(t.Shape), devices))}
	}
	place := map[*graph.Node]int{}
	for i, u := range g.Updates() {
		place[u.Var] = i
	}
	for _, n := range g.Variables() {
		t := n.Type()
		var attrs []string
		if i, ok := place[n]; ok { // the new value may take the place of the old one
			attrs = append(attrs, fmt.Sprintf("tf.aliasing_output = %d : i32", i))
		}
		if s := sharding(false, len(t.Shape), devices); s != "" {
			attrs = append(attrs, s)
		}
		vals[n.ID()] = []stablehlo.Value{b.Arg(stablehlo.Of(t.DType), t.Shape, strings.Join(attrs, ", "))}
	}
	if err := graph.Lower(b, g, vals); err != nil {
		return nil, err
	}
	var results []stablehlo.Value
	for _, u := range g.Updates() {
		results = append(results, vals[u.Value.ID()][0])
	}
	for _, o := range g.Outputs() {
		results = append(results, vals[o.Node.ID()][0])
	}
	if finite {
		results = append(results, p.check(b, g, vals))
	}
	attrs := make([]string, len(results))
	for i, r := range results {
		attrs[i] = sharding(false, len(r.Shape), devices)
	}
	module := ""
	if devices > 1 {
		b.Declare(fmt.Sprintf(`sdy.mesh @devices = <["batch"=%d]>`, devices))
		module = fmt.Sprintf("mhlo.num_replicas = 1 : i32, mhlo.num_partitions = %d : i32", devices)
	}
	p.text = b.Module("joule", module, results, attrs)
	return p, nil
}

// check adds, for each live node with floats, whether they are all finite: one vector.
func (p *program) check(b *stablehlo.Builder, g *graph.Graph, vals [][]stablehlo.Value) stablehlo.Value {
	live := g.Live()
	var all []stablehlo.Value
	for _, n := range g.Nodes() {
		if n.Op().Kind == graph.Leaf || !live[n.ID()] {
			continue
		}
		for _, v := range vals[n.ID()] {
			if !v.Elem.IsFloat() {
				continue
			}
			fine := b.Emit("is_finite", "", []stablehlo.Value{{Elem: stablehlo.Bool, Shape: v.Shape}}, nil, v)[0]
			axes := make([]int, len(v.Shape))
			for i := range axes {
				axes[i] = i
			}
			all = append(all, b.Reshape(b.Reduce("and", fine, 1, axes...), 1))
			p.checked = append(p.checked, n)
		}
	}
	if len(all) == 0 {
		return b.Fill(stablehlo.Bool, 1, shape.Of(0))
	}
	return b.Concat(0, all...)
}
