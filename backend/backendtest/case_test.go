package backendtest

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/op"
)

// Every good sample of every op has a line that says it, and the line runs what it says.
func TestCaseLines(t *testing.T) {
	n := 0
	for _, o := range op.All() {
		for _, s := range o.Samples {
			if s.Bad != "" {
				continue
			}
			c := Case{o.Name, s.Name, "portable", 3}
			back, err := ParseCase(c.String())
			if err != nil || back != c {
				t.Errorf("%v is read as %v, %v", c, back, err)
			}
			n++
		}
	}
	if n < 100 {
		t.Errorf("only %d samples", n)
	}
	c, err := ParseCase("tanh/" + firstGood(t, "tanh"))
	if err != nil || c.Threads != 1 || c.ISA != isa.Bytes().String() {
		t.Fatalf("%v, %v", c, err)
	}
	kernels, err := c.Run(cpu.Backend{})
	if err != nil || len(kernels) == 0 {
		t.Errorf("%v: %v", kernels, err)
	}
	// A backend that computes something else is found out.
	if _, err := c.Run(wrong{}); err == nil || !strings.Contains(err.Error(), "element 0") {
		t.Errorf("a wrong backend: %v", err)
	}
}

func firstGood(t *testing.T, name string) string {
	for _, o := range op.All() {
		if o.Name == name {
			for _, s := range o.Samples {
				if s.Bad == "" {
					return s.Name
				}
			}
		}
	}
	t.Fatalf("op %s has no sample", name)
	return ""
}

// wrong runs another graph than the one it is given.
type wrong struct{ cpu.Backend }

func (w wrong) Compile(g *graph.Graph, s backend.State, o backend.Options) (backend.Executable, error) {
	h, err := graph.Build(func(b *graph.Graph) {
		x := b.Input("x0", g.Inputs()[0].Type())
		b.Output("y0", op.Add(x, op.Full(b, x.Type(), 3)))
	})
	if err != nil {
		return nil, err
	}
	return w.Backend.Compile(h, s, o)
}

func TestCaseMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"":                          "is no case",
		"tanh":                      "is no case",
		"tanhh/a":                   `no op "tanhh", did you mean "tanh"?`,
		"tanh/nosuch":               "has no sample",
		"tanh/x isa=avx1024":        "unknown instruction set",
		"tanh/x threads=0":          "no number from 1",
		"tanh/x threads=1000000000": "no number from 1",
	} {
		if _, err := ParseCase(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", line, err, want)
		}
	}
}
