package graph

import (
	"fmt"
	"strings"
)

// DOT writes a graph for Graphviz: one box a node, with its layer. The bodies of a node are clusters, and dashed lines lead from the node to their results.
func DOT(g *Graph) string {
	var b strings.Builder
	b.WriteString("digraph joule {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\", fontsize=10];\n")
	dot(&b, g, "n", "  ")
	b.WriteString("}\n")
	return b.String()
}

// dot writes the nodes of g, whose names begin with prefix.
func dot(b *strings.Builder, g *Graph, prefix, indent string) {
	live := g.Live()
	colour := map[Phase]string{Forward: "#dceefb", Backward: "#fde8d7", Update: "#e2f5df"}
	for _, n := range g.nodes {
		if !live[n.id] {
			continue
		}
		label := n.op.Name
		if s := NameOf(n); s != "" {
			label += " " + s
		}
		for _, t := range n.out {
			label += "\n" + t.String()
		}
		if n.scope != "" {
			label += "\n" + n.scope
		}
		fmt.Fprintf(b, "%s%s%d [label=%q, style=filled, fillcolor=%q];\n", indent, prefix, n.id, label, colour[n.phase])
		for _, x := range n.in {
			fmt.Fprintf(b, "%s%s%d -> %s%d;\n", indent, prefix, x.id, prefix, n.id)
		}
		h, ok := n.attrs.(interface{ Graphs() []*Graph })
		if !ok {
			continue
		}
		for i, body := range h.Graphs() {
			inner := fmt.Sprintf("%s%d_%d_", prefix, n.id, i)
			fmt.Fprintf(b, "%ssubgraph cluster_%s { label=%q;\n", indent, inner, fmt.Sprintf("body %d of %v %s", i, n, n.op.Name))
			dot(b, body, inner, indent+"  ")
			fmt.Fprintf(b, "%s}\n", indent)
			for _, o := range body.outputs {
				fmt.Fprintf(b, "%s%s%d -> %s%d [style=dashed, dir=none, label=%q];\n", indent, inner, o.Node.id, prefix, n.id, o.Name)
			}
		}
	}
}
