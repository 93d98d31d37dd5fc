// Package backendtest is the conformance suite: what every backend must pass, driven by the samples in the op table.
package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/race"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Operands makes values for a sample's operands, the same for the same seed.
func Operands(s graph.Sample, seed uint64) []*tensor.Tensor {
	rng := rand.New(rand.NewPCG(seed, 17))
	out := make([]*tensor.Tensor, len(s.In))
	for i, ty := range s.In {
		if i < len(s.Data) && s.Data[i] != nil {
			out[i] = s.Data[i]
			continue
		}
		lo, hi := s.Lo, s.Hi
		if lo == 0 && hi == 0 {
			lo, hi = -1, 1
		}
		out[i] = tensor.New(ty.DType, ty.Shape...)
		fill(out[i], rng, lo, hi)
	}
	return out
}

// Inputs makes values for the inputs of g, the same for the same seed.
func Inputs(g *graph.Graph, seed uint64) []*tensor.Tensor {
	var s graph.Sample
	for _, x := range g.Inputs() {
		s.In = append(s.In, x.Type())
	}
	return Operands(s, seed)
}

// Vars declares the variables of g.
func Vars(g *graph.Graph) (vars []backend.Var) {
	for _, v := range g.Variables() {
		vars = append(vars, backend.Var{Name: graph.NameOf(v), Type: v.Type()})
	}
	return vars
}

func fill(t *tensor.Tensor, rng *rand.Rand, lo, hi float64) {
	for i := range t.Len() {
		switch {
		case t.DType().IsFloat():
			t.Set(i, lo+(hi-lo)*rng.Float64())
		case t.DType() == dtype.Bool:
			t.Set(i, float64(rng.IntN(2)))
		case t.DType() == dtype.U8:
			t.Set(i, float64(rng.IntN(256)))
		default:
			t.Set(i, float64(rng.IntN(21)-10))
		}
	}
}

// Parts are all results of a node.
func Parts(n *graph.Node) []*graph.Node {
	out := make([]*graph.Node, len(n.Types()))
	for i := range out {
		out[i] = n.Part(i)
	}
	return out
}

// Single is the graph that applies o once, with inputs x0, x1, … and outputs y0, y1, …
func Single(o *graph.Op, attrs any, in []graph.Type) (*graph.Graph, error) {
	return graph.Build(func(g *graph.Graph) {
		xs := make([]*graph.Node, len(in))
		for i, ty := range in {
			xs[i] = g.Input(fmt.Sprint("x", i), ty)
		}
		for i, y := range Parts(g.Apply(o, attrs, xs...)) {
			g.Output(fmt.Sprint("y", i), y)
		}
	})
}

// Run runs every sample of every op of the table on b and compares with the reference.
func Run(t *testing.T, b backend.Backend, threads ...int) {
	for _, o := range op.All() {
		Op(t, b, o, threads...)
	}
	Ready(t, b)
}

// Ready checks that a run announces each output once, when its value is there: also of outputs that are inputs, variables, views, constants or the same value twice.
func Ready(t *testing.T, b backend.Backend) {
	v := backend.Var{Name: "v", Type: graph.T(dtype.F32, 4, 4)}
	g, err := graph.Build(func(g *graph.Graph) {
		x, w := g.Input("x", graph.T(dtype.F32, 4, 4)), g.Variable("v", v.Type)
		first := op.MatMul(x, w)
		second := op.MatMul(op.Tanh(first), first)
		g.Output("first", first)
		g.Output("second", second)
		g.Output("view", op.Reshape(second, 16))
		g.Output("x", x)
		g.Output("v", w)
		g.Output("one", op.Full(g, v.Type, 1))
		g.Update(w, op.Add(w, second))
	})
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.NewState([]backend.Var{v})
	if err != nil {
		t.Fatal(err)
	}
	out, seen := backend.NewOutputs(g), make([]*tensor.Tensor, len(g.Outputs()))
	e, err := b.Compile(g, st, backend.Options{Threads: 1, Ready: func(i int) {
		if seen[i] != nil {
			t.Errorf("%s: output %d is announced twice", b.Name(), i)
		}
		seen[i] = out[i].Clone()
	}})
	if err != nil {
		t.Fatal(err)
	}
	in := []*tensor.Tensor{tensor.New(dtype.F32, 4, 4)}
	for i := range in[0].F32() {
		in[0].F32()[i] = float32(i) / 16
	}
	for range 2 {
		if err := st.Set("v", in[0]); err != nil {
			t.Fatal(err)
		}
		clear(seen)
		for _, o := range out {
			for i := range o.F32() {
				o.F32()[i] = float32(math.NaN())
			}
		}
		if err := e.Run(in, out); err != nil {
			t.Fatal(err)
		}
		for i, s := range seen {
			switch {
			case s == nil:
				t.Errorf("%s: output %d is not announced", b.Name(), i)
			case string(s.Bytes()) != string(out[i].Bytes()) || s.At(1) != s.At(1):
				t.Errorf("%s: output %d was announced as %v and is %v", b.Name(), i, s, out[i])
			}
		}
	}
}

// Op runs the samples of one op: results agree with the reference, with outputs filled with NaN before and guarded behind, the same bits at a second run
// and for every number of threads, no allocation after the first run (unless it ran on
// the reference); bad samples are refused with the words they name.
func Op(t *testing.T, b backend.Backend, o *graph.Op, threads ...int) {
	if len(o.Samples) == 0 {
		t.Errorf("op %s has no samples", o.Name)
	}
	if len(threads) == 0 {
		threads = []int{1}
	}
	for k, s := range o.Samples {
		t.Run(o.Name+"/"+s.Name, func(t *testing.T) {
			g := build(t, o, s)
			if g == nil {
				return
			}
			in := Operands(s, uint64(k)+1)
			want, err := execute(ref.Backend{}, g, in, 1, false)
			if err != nil {
				t.Fatal(err)
			}
			var first []*tensor.Tensor
			for _, n := range threads {
				if first, err = compare(b, g, s, in, want, n, first); err != nil {
					t.Fatalf("op %s: %v\nagain: joule repro '%v'", o.Name, err, Case{o.Name, s.Name, isa.Bytes().String(), n})
				}
			}
		})
	}
}

// build makes the graph of a sample; of a bad one it checks that it is refused, and gives nil.
func build(t *testing.T, o *graph.Op, s graph.Sample) *graph.Graph {
	t.Helper()
	g, err := Single(o, s.Attrs, s.In)
	switch {
	case s.Bad != "" && (err == nil || !strings.Contains(err.Error(), s.Bad)):
		t.Fatalf("construction gave error %v; want one with %q", err, s.Bad)
	case s.Bad == "" && err != nil:
		t.Fatal(err)
	}
	return g
}

// Constructs checks that a good sample can be built and run, and that a bad one is refused with the words it names.
func Constructs(t *testing.T, o *graph.Op, s graph.Sample, b backend.Backend) {
	g := build(t, o, s)
	if g == nil {
		return
	}
	if _, err := execute(b, g, Operands(s, 1), 1, false); err != nil {
		t.Fatal(err)
	}
}

// execute runs g twice (with checks: that both runs give the same bits, and that the second allocates nothing).
func execute(b backend.Backend, g *graph.Graph, in []*tensor.Tensor, threads int, checks bool) ([]*tensor.Tensor, error) {
	st, err := b.NewState(nil)
	if err != nil {
		return nil, err
	}
	e, err := b.Compile(g, st, backend.Options{Threads: threads})
	if err != nil {
		return nil, err
	}
	const guard = 64
	out := make([]*tensor.Tensor, len(g.Outputs()))
	raw := make([][]byte, len(out))
	for i, o := range g.Outputs() {
		n := o.Node.Type().Bytes()
		raw[i] = tensor.AlignedBytes(n + guard)
		for j := range raw[i] {
			raw[i][j] = 0xff // NaN
		}
		out[i] = tensor.Wrap(o.Node.DType(), o.Node.Shape(), raw[i][:n])
	}
	if err := e.Run(in, out); err != nil {
		return nil, err
	}
	if !checks {
		return out, nil
	}
	once := clone(out)
	if err := e.Run(in, out); err != nil {
		return nil, err
	}
	for i := range out {
		if string(out[i].Bytes()) != string(once[i].Bytes()) {
			return nil, fmt.Errorf("a second run gives other bits in result %d", i)
		}
		for _, c := range raw[i][len(out[i].Bytes()):] {
			if c != 0xff {
				return nil, fmt.Errorf("result %d was written beyond its end", i)
			}
		}
	}
	onReference := slices.ContainsFunc(e.Profile(), func(t backend.NodeTime) bool { return strings.Contains(t.Kernel, "reference") })
	if !race.Enabled && !onReference {
		if a := allocs.PerRun(func() { err = e.Run(in, out) }); a != 0 || err != nil {
			return nil, fmt.Errorf("%v allocations a run after the first (error %v)", a, err)
		}
	}
	return out, nil
}

// Close compares got with want: integers and Booleans exactly, floats within tol times the magnitude of what was added up, which the
// largest element of want stands for.
func Close(got, want *tensor.Tensor, tol float64) error {
	if !graph.TypeOf(got).Equal(graph.TypeOf(want)) {
		return fmt.Errorf("type %v, want %v", graph.TypeOf(got), graph.TypeOf(want))
	}
	if got.DType() == dtype.BF16 {
		tol = max(tol, 1.0/128)
	}
	scale := 0.0
	for i := range want.Len() {
		if v := math.Abs(want.At(i)); v > scale && !math.IsInf(v, 0) {
			scale = v
		}
	}
	for i := range want.Len() {
		a, b := got.At(i), want.At(i)
		if a == b || a != a && b != b {
			continue
		}
		if !want.DType().IsFloat() || !(math.Abs(a-b) <= tol*(math.Abs(b)+0.1*scale)) {
			return fmt.Errorf("element %d is %v, want %v (tolerance %g)", i, a, b, tol)
		}
	}
	return nil
}
