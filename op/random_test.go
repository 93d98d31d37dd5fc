package op_test

import (
	"math"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// draw runs two streams of a state on a backend.
func draw(t *testing.T, b backend.Backend, seed, count int64, f func(s *graph.Node, stream int, dims ...int) *graph.Node) (u, v []float32) {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		s := g.Input("state", graph.T(dtype.I64, 2))
		g.Output("u", f(s, 1, 10000))
		g.Output("v", f(s, 2, 100, 100))
	})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := b.NewState(nil)
	e, err := b.Compile(g, st, backend.Options{Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	out := backend.NewOutputs(g)
	if err := e.Run([]*tensor.Tensor{tensor.Of([]int64{seed, count})}, out); err != nil {
		t.Fatal(err)
	}
	return out[0].F32(), out[1].F32()
}

// Streams, counts and seeds give independent numbers; backends give the same.
func TestRandomStreams(t *testing.T) {
	for name, f := range map[string]func(*graph.Node, int, ...int) *graph.Node{"uniform": op.RandomUniform, "normal": op.RandomNormal} {
		u, v := draw(t, cpu.Backend{}, 7, 0, f)
		next, _ := draw(t, cpu.Backend{}, 7, 1, f)
		other, _ := draw(t, cpu.Backend{}, 8, 0, f)
		plain, _ := draw(t, ref.Backend{}, 7, 0, f)
		for i := range u {
			if u[i] != plain[i] {
				t.Fatalf("%s: element %d is %v, on the reference %v", name, i, u[i], plain[i])
			}
		}
		for what, w := range map[string][]float32{"stream": v, "count": next, "seed": other} {
			// The correlation of n independent pairs has a deviation of 1/√n = 0.01.
			if r := correlation(u, w); math.Abs(r) > 0.05 {
				t.Errorf("%s: another %s is correlated: %g", name, what, r)
			}
		}
	}
}

func correlation(a, b []float32) float64 {
	var ma, mb, ab, aa, bb float64
	for i := range a {
		ma += float64(a[i]) / float64(len(a))
		mb += float64(b[i]) / float64(len(a))
	}
	for i := range a {
		x, y := float64(a[i])-ma, float64(b[i])-mb
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}
