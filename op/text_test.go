package op_test

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Every op's graph reads back from its text, the same.
func TestTextReadsBack(t *testing.T) {
	for _, o := range op.All() {
		for _, s := range o.Samples {
			if s.Bad != "" {
				continue
			}
			g, err := backendtest.Single(o, s.Attrs, s.In)
			if err != nil {
				t.Fatal(err)
			}
			text := graph.Print(g)
			back, err := graph.Parse(text, op.Lookup)
			if err != nil {
				t.Errorf("%s/%s: %v\n%s", o.Name, s.Name, err, text)
				continue
			}
			if again := graph.Print(back); again != text {
				t.Errorf("%s/%s:\n%s\nbecomes\n%s", o.Name, s.Name, text, again)
			}
		}
	}
}

func TestTextOfConstantsAndUpdates(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		v := g.Variable("a \"quoted\" name", graph.T(dtype.F32, 2))
		var x *graph.Node
		g.In("layer/1", func() { x = op.Add(v, g.Const(tensor.Of([]float32{1e-30, -0.1}))) })
		g.During(graph.Update, func() { g.Update(v, op.Mul(x, g.Const(tensor.New(dtype.F32, 2)))) })
		g.Output("out", op.SumAll(g.Const(tensor.New(dtype.I64, 40))))
	})
	if err != nil {
		t.Fatal(err)
	}
	text := graph.Print(g)
	back, err := graph.Parse(text, op.Lookup)
	if err != nil || graph.Print(back) != text {
		t.Fatalf("%v\n%s", err, text)
	}
	if d := graph.DOT(g); !strings.Contains(d, "layer/1") || !strings.Contains(d, "->") {
		t.Error(d)
	}
}

func FuzzParse(f *testing.F) {
	for _, o := range op.All()[:20] {
		if g, err := backendtest.Single(o, o.Samples[0].Attrs, o.Samples[0].In); err == nil {
			f.Add(graph.Print(g))
		}
	}
	f.Add("%0 = input() {\"Name\":\"x\"} : f32[2] forward\noutput \"y\" %0\n")
	f.Fuzz(func(t *testing.T, text string) {
		g, err := graph.Parse(text, op.Lookup)
		if err != nil {
			return
		}
		if _, err := graph.Parse(graph.Print(g), op.Lookup); err != nil {
			t.Fatalf("%v\n%s", err, graph.Print(g))
		}
	})
}
