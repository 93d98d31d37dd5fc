package graph

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/jouleml/joule/dtype"
)

// Print writes a graph as text, a node a line, that Parse (given the table of ops) reads back:
//
//	%3 = conv(%0, %1) {"Stride":[1,1]} : f32[32 26 26 32] @conv2d forward
//	output "y" %3
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

// constText is how a constant's elements are written: few as numbers (in quotes, since JSON has no NaN), many as base64 of their bytes.
type constText struct {
	Elements []string `json:",omitempty"`
	Base64   string   `json:",omitempty"`
}

// nameText is how a leaf is written; its type stands behind the colon.
type nameText struct{ Name string }

// attrText is the attribute struct as JSON, "" for none.
func attrText(a any) string {
	switch v := a.(type) {
	case nil, struct{}:
		return ""
	case ConstAttrs:
		var c constText
		if v.Value.Len() <= 16 && v.Value.DType() != dtype.I64 {
			for i := range v.Value.Len() {
				c.Elements = append(c.Elements, strconv.FormatFloat(v.Value.At(i), 'g', -1, 64))
			}
		} else {
			c.Base64 = base64.StdEncoding.EncodeToString(v.Value.Bytes())
		}
		a = c
	case LeafAttrs:
		a = nameText{v.Name}
	}
	j, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("graph: attributes %T cannot be printed: %v", a, err)) // a bug in an op's literal
	}
	if string(j) == "{}" {
		return ""
	}
	return string(j)
}
