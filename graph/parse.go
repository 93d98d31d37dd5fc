package graph

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Parse reads what Print writes. ops finds an op by name, nil for an unknown one. Types are inferred again and must be those that the text states. Every
// error names the line.
func Parse(text string, ops func(name string) *Op) (g *Graph, err error) {
	p := &parser{ops: ops}
	// Builders give ops attributes that make sense; text may not, and an op's Infer need not expect that.
	defer func() {
		if r := recover(); r != nil {
			g, err = nil, fmt.Errorf("graph: line %d: attributes or operands that the op does not take: %v", p.at+1, r)
		}
	}()
	s := bufio.NewScanner(strings.NewReader(text))
	s.Buffer(nil, 1<<28)
	for s.Scan() {
		p.lines = append(p.lines, s.Text())
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("graph: %w", err)
	}
	if g, err = p.graph(""); err != nil {
		return nil, fmt.Errorf("graph: line %d: %w", p.at+1, err)
	}
	return g, nil
}

type parser struct {
	lines []string
	at    int
	ops   func(name string) *Op
}

// graph reads lines of one indentation until a closing brace or the end.
func (p *parser) graph(indent string) (g *Graph, err error) {
	defer catch(&err)
	g = &Graph{}
	nodes := map[string]*Node{}
	for ; p.at < len(p.lines); p.at++ {
		line := strings.TrimPrefix(p.lines[p.at], indent)
		word, rest, _ := strings.Cut(line, " ")
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "}":
			g.locked = true
			return g, g.Verify()
		case word == "output":
			name, ref, err := quoted(rest)
			if err != nil {
				return nil, err
			}
			n := nodes[strings.TrimSpace(ref)]
			if n == nil {
				return nil, fmt.Errorf("output of an unknown node %q", ref)
			}
			g.Output(name, n)
		case word == "update":
			v, x, _ := strings.Cut(rest, " ")
			if nodes[v] == nil || nodes[x] == nil {
				return nil, fmt.Errorf("update of unknown nodes %q", rest)
			}
			g.Update(nodes[v], nodes[x])
		default:
			n, err := p.node(g, nodes, line, indent)
			if err != nil {
				return nil, err
			}
			nodes[word] = n
		}
	}
	g.locked = true
	return g, g.Verify()
}

func quoted(s string) (name, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", fmt.Errorf("a name in quotes is missing in %q", s)
	}
	name, err = strconv.Unquote(q)
	return name, s[len(q):], err
}

// node reads "%3 = conv(%0, %1) {…} : f32[2 3] @scope forward".
func (p *parser) node(g *Graph, nodes map[string]*Node, line, indent string) (*Node, error) {
	_, rest, ok := strings.Cut(line, " = ")
	name, rest, ok2 := strings.Cut(rest, "(")
	args, rest, ok3 := strings.Cut(rest, ")")
	if !ok || !ok2 || !ok3 {
		return nil, fmt.Errorf("want \"%%N = op(…) : type phase\", not %q", line)
	}
	op := p.ops(name)
	if op == nil {
		return nil, fmt.Errorf("unknown op %q", name)
	}
	var in []*Node
	for _, a := range strings.Split(args, ", ") {
		if a == "" {
			continue
		}
		n := nodes[a]
		if n == nil {
			return nil, fmt.Errorf("%s reads an unknown node %q", name, a)
		}
		in = append(in, n)
	}
	var attrs json.RawMessage
	rest = strings.TrimPrefix(rest, " ")
	if strings.HasPrefix(rest, "{") {
		d := json.NewDecoder(strings.NewReader(rest))
		if err := d.Decode(&attrs); err != nil {
			return nil, fmt.Errorf("attributes of %s: %w", name, err)
		}
		rest = strings.TrimPrefix(rest[d.InputOffset():], " ")
	}
	typeText, rest, err := p.types(rest)
	if err != nil {
		return nil, err
	}
	scope, phase, err := place(rest)
	if err != nil {
		return nil, err
	}
	a, err := p.attrs(op, attrs, typeText, indent)
	if err != nil {
		return nil, fmt.Errorf("attributes of %s: %w", name, err)
	}
	g.scope, g.phase = scope, phase
	n := g.Apply(op, a, in...)
	g.scope, g.phase = "", Forward
	switch op {
	case OpInput:
		g.inputs = append(g.inputs, n)
	case OpVariable:
		g.vars = append(g.vars, n)
	}
	if len(n.out) != len(typeText) {
		return nil, fmt.Errorf("%s has %d results, the text says %d", name, len(n.out), len(typeText))
	}
	for i, t := range n.out {
		if !t.Equal(typeText[i]) {
			return nil, fmt.Errorf("result %d of %s is %v, the text says %v", i, name, t, typeText[i])
		}
	}
	return n, nil
}

// types reads ": f32[2 3], u8[2 3]" and gives what follows.
func (p *parser) types(s string) ([]Type, string, error) {
	s, ok := strings.CutPrefix(s, ": ")
	if !ok {
		return nil, "", fmt.Errorf("a type is missing at %q", s)
	}
	var out []Type
	for {
		dt, rest, ok := strings.Cut(s, "[")
		dims, rest, ok2 := strings.Cut(rest, "]")
		if !ok || !ok2 {
			return nil, "", fmt.Errorf("%q is no type", s)
		}
		d, err := dtype.Parse(dt)
		if err != nil {
			return nil, "", err
		}
		t := Type{DType: d, Shape: shape.Shape{}}
		for _, f := range strings.Fields(dims) {
			n, err := strconv.Atoi(f)
			if err != nil {
				return nil, "", fmt.Errorf("%q is no length of an axis", f)
			}
			t.Shape = append(t.Shape, n)
		}
		if err := t.Shape.Check(); err != nil {
			return nil, "", err
		}
		out = append(out, t)
		if s, ok = strings.CutPrefix(rest, ", "); !ok {
			return out, strings.TrimPrefix(rest, " "), nil
		}
	}
}

func place(s string) (scope string, phase Phase, err error) {
	if t, ok := strings.CutPrefix(s, "@"); ok {
		i := strings.LastIndexByte(t, ' ')
		if i < 0 {
			return "", 0, fmt.Errorf("a phase is missing at %q", s)
		}
		scope, s = t[:i], t[i+1:]
	}
	for _, p := range []Phase{Forward, Backward, Update} {
		if s == p.String() {
			return scope, p, nil
		}
	}
	return "", 0, fmt.Errorf("unknown phase %q", s)
}

// attrs makes an op's attributes from their text.
func (p *parser) attrs(op *Op, text json.RawMessage, types []Type, indent string) (any, error) {
	if op.NewAttrs == nil {
		return nil, nil
	}
	to := op.NewAttrs()
	switch v := to.(type) {
	case *LeafAttrs:
		var n nameText
		if err := json.Unmarshal(text, &n); err != nil {
			return nil, err
		}
		return LeafAttrs{n.Name, types[0]}, nil
	case *ConstAttrs:
		t, err := constant(text, types[0])
		return ConstAttrs{t}, err
	case interface{ SetGraphs([]*Graph) }:
		if text != nil {
			if err := json.Unmarshal(text, to); err != nil {
				return nil, err
			}
		}
		var gs []*Graph
		for p.at+1 < len(p.lines) && strings.TrimSpace(p.lines[p.at+1]) == "{" {
			p.at += 2
			g, err := p.graph(indent + "    ")
			if err != nil {
				return nil, err
			}
			gs = append(gs, g)
		}
		v.SetGraphs(gs)
	default:
		if text != nil {
			if err := json.Unmarshal(text, to); err != nil {
				return nil, err
			}
		}
	}
	return reflect.ValueOf(to).Elem().Interface(), nil
}

func constant(text json.RawMessage, t Type) (*tensor.Tensor, error) {
	var c constText
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	if c.Base64 == "" && len(c.Elements) != t.Shape.Size() {
		return nil, fmt.Errorf("%d elements for %v", len(c.Elements), t)
	}
	if c.Base64 != "" {
		b, err := base64.StdEncoding.DecodeString(c.Base64)
		if err != nil || len(b) != t.Bytes() {
			return nil, fmt.Errorf("%d bytes for %v (%v)", len(b), t, err)
		}
		x := tensor.New(t.DType, t.Shape...)
		copy(x.Bytes(), b)
		return x, nil
	}
	x := tensor.New(t.DType, t.Shape...)
	for i, s := range c.Elements {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return nil, err
		}
		x.Set(i, v)
	}
	return x, nil
}
