package graph

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Print writes a graph as text, a node a line, that Parse (given the table of ops) reads back:
//
//	%3 = conv(%0, %1) {"Stride":[1,1]} : f32[32 26 26 32] @conv2d forward
//
// A body (an attribute that is itself a graph) is printed indented below its node.
func Print(g *Graph) string {
	var b strings.Builder
	g.print(&b, "")
	return b.String()
}

func (g *Graph) print(b *strings.Builder, indent string) {
	for _, n := range g.nodes {
		fmt.Fprintf(b, "%s%v = %s(", indent, n, n.op.Name)
		for i, x := range n.in {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(x.String())
		}
		b.WriteByte(')')
		if a := attrText(n.attrs); a != "" {
			b.WriteString(" " + a)
		}
		for i, t := range n.out {
			b.WriteString([]string{" : ", ", "}[min(i, 1)] + t.String())
		}
		if n.scope != "" {
			b.WriteString(" @" + n.scope)
		}
		b.WriteString(" " + n.phase.String() + "\n")
		if h, ok := n.attrs.(interface{ Graphs() []*Graph }); ok {
			for _, sub := range h.Graphs() {
				b.WriteString(indent + "  {\n")
				sub.print(b, indent+"    ")
				b.WriteString(indent + "  }\n")
			}
		}
	}
	for _, o := range g.outputs {
		fmt.Fprintf(b, "%soutput %q %v\n", indent, o.Name, o.Node)
	}
	for _, u := range g.updates {
		fmt.Fprintf(b, "%supdate %v %v\n", indent, u.Var, u.Value)
	}
}

// attrText is the attribute struct as JSON; constants are their type and their bytes.
func attrText(a any) string {
	switch a := a.(type) {
	case nil, struct{}:
		return ""
	case ConstAttrs:
		if a.Value.Len() == 1 {
			return fmt.Sprintf("{%v %v}", TypeOf(a.Value), a.Value.At(0))
		}
		return fmt.Sprintf("{%v %s}", TypeOf(a.Value), base64.StdEncoding.EncodeToString(a.Value.Bytes()))
	case LeafAttrs:
		return fmt.Sprintf("{%q}", a.Name)
	case interface{ Graphs() []*Graph }:
		return ""
	}
	j, err := json.Marshal(a)
	if err != nil {
		return fmt.Sprintf("{%v}", err)
	}
	return string(j)
}
