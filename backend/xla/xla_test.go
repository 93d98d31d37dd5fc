package xla_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/dl"
	"github.com/jouleml/joule/internal/pjrt"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Every op of the table that is not made by passes of the CPU conforms.
func TestConformance(t *testing.T) {
	b := backendtest.XLA(t, 1)
	for _, o := range op.All() {
		if o.NoLower == "" {
			backendtest.Op(t, b, o)
		}
	}
	backendtest.Ready(t, b)
}

// must fails the test on an error.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// run compiles and runs a graph without variables.
func run(b backend.Backend, g *graph.Graph, in ...*tensor.Tensor) ([]*tensor.Tensor, error) {
	st, err := b.NewState(nil)
	if err != nil {
		return nil, err
	}
	e, err := b.Compile(g, st, backend.Options{})
	if err != nil {
		return nil, err
	}
	out := backend.NewOutputs(g)
	return out, e.Run(in, out)
}

// Every element type crosses to the device and back, and computes.
func TestElementTypes(t *testing.T) {
	b := backendtest.XLA(t, 1)
	for _, dt := range dtype.All {
		g := must(graph.Build(func(g *graph.Graph) {
			x, y := g.Input("x", graph.T(dt, 3, 4)), g.Input("y", graph.T(dt, 4, 2))
			g.Output("same", x)
			g.Output("turned", op.Transpose(x))
			g.Output("repeated", op.BroadcastTo(op.SliceAxis(x, 0, 0, 1), 5, 4))
			g.Output("less", op.Lt(x, op.Reverse(x, 1)))
			for _, to := range dtype.All {
				g.Output("as "+to.String(), op.Convert(x, to))
			}
			c := tensor.New(dt, 2, 3)
			for i := range c.Len() {
				c.Set(i, float64(i%2*3))
			}
			g.Output("constant", g.Const(c))
			if dt == dtype.Bool {
				g.Output("not", op.Not(x))
				return
			}
			g.Output("product", op.MatMul(x, y))
			g.Output("sum", op.Sum(x, 0))
			g.Output("greatest", op.ReduceMax(x, 1))
			g.Output("least", op.ReduceMin(x, 0, 1))
			g.Output("square", op.Mul(x, x))
			g.Output("position", op.ArgMax(x, 1))
			g.Output("running", op.CumSum(x, 1, false, false))
			sorted, _ := op.Sort(x, 1, true)
			g.Output("sorted", sorted)
		}))
		x, y := tensor.New(dt, 3, 4), tensor.New(dt, 4, 2)
		for i := range 12 {
			x.Set(i, float64(i*5%7)-2)
			if dt == dtype.U8 {
				x.Set(i, float64(i*50))
			}
		}
		for i := range 8 {
			y.Set(i, float64(i%3))
		}
		got, want := must(run(b, g, x, y)), must(run(ref.Backend{}, g, x, y))
		for i, o := range g.Outputs() {
			if err := backendtest.Close(got[i], want[i], 1e-6); err != nil {
				t.Errorf("%v: %s: %v", dt, o.Name, err)
			}
		}
	}
}

// Within a run every read of a variable sees the old value, whether it is updated or not; the state outlives programs, and more variables can join it.
func TestState(t *testing.T) {
	b := backendtest.XLA(t, 1)
	ty := graph.T(dtype.F32, 2)
	st := must(b.NewState([]backend.Var{{Name: "a", Type: ty}, {Name: "b", Type: ty}}))
	for _, err := range []error{
		st.Set("a", tensor.Of([]float32{1, 2})), st.Set("b", tensor.Of([]float32{3, 4})), st.Add(backend.Var{Name: "a", Type: ty}, backend.Var{Name: "c", Type: graph.T(dtype.I64)}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	g := must(graph.Build(func(g *graph.Graph) {
		a, b, c := g.Variable("a", ty), g.Variable("b", ty), g.Variable("c", graph.T(dtype.I64))
		g.Update(a, b) // they change places
		g.Update(b, a)
		g.Update(c, op.Add(c, op.Scalar(g, dtype.I64, 1)))
		g.Output("old", a)
	}))
	e := must(b.Compile(g, st, backend.Options{}))
	out := backend.NewOutputs(g)
	for i := range 5 {
		if err := e.Run(nil, out); err != nil {
			t.Fatal(err)
		}
		if want := []float32{1, 3}[i%2]; out[0].F32()[0] != want {
			t.Errorf("run %d gave %v", i, out[0])
		}
	}
	if a, c := must(st.Get("a")), must(st.Get("c")); a.F32()[1] != 4 || c.At(0) != 5 {
		t.Errorf("a = %v, c = %v", a, c)
	}
	if got := len(e.Profile()); got == 0 || e.Profile()[0].Calls != 5 || e.Memory() < 0 {
		t.Errorf("%d nodes in the profile", got)
	}
	e.Reset()
	if e.Profile()[0].Calls != 0 {
		t.Error("the profile was not reset")
	}
	for what, err := range map[string]error{
		"no variable":    st.Set("d", tensor.Of([]float32{1})),
		"cannot take":    st.Set("a", tensor.Of([]float32{1})),
		"cannot become":  st.Add(backend.Var{Name: "a", Type: graph.T(dtype.I32, 2)}),
		"2 inputs":       e.Run(nil, nil),
		"another backe":  second(b.Compile(g, must(cpu.Backend{}.NewState(nil)), backend.Options{})),
		`variable "a" o`: second(b.Compile(g, must(b.NewState(nil)), backend.Options{})),
	} {
		if what == "2 inputs" {
			what = "1 outputs"
		}
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("error %v; want one with %q", err, what)
		}
	}
	if _, err := st.Get("d"); err == nil {
		t.Error("a variable that is not there can be read")
	}
}

func second[T any](_ T, err error) error { return err }

// A program that looks for values that are not finite names the layer.
func TestStopAtNaN(t *testing.T) {
	b := backendtest.XLA(t, 1)
	g := must(graph.Build(func(g *graph.Graph) {
		x := g.Input("x", graph.T(dtype.F32, 3))
		g.In("dense_1", func() { x = op.Neg(x) })
		g.In("dense_2", func() { x = op.Log(x) })
		g.In("dense_3", func() { x = op.Tanh(x) })
		g.Output("y", x)
	}))
	e := must(b.Compile(g, must(b.NewState(nil)), backend.Options{StopAtNaN: true}))
	out := backend.NewOutputs(g)
	if err := e.Run([]*tensor.Tensor{tensor.Of([]float32{-1, -2, -3})}, out); err != nil {
		t.Fatal(err)
	}
	err := e.Run([]*tensor.Tensor{tensor.Of([]float32{-1, 2, -3})}, out)
	if err == nil || !strings.Contains(err.Error(), "dense_2") || !strings.Contains(err.Error(), "xla_test.go") {
		t.Errorf("%v", err)
	}
}

// A compiled program is taken from the cache where it fits, and what is damaged there is replaced.
func TestCache(t *testing.T) {
	backendtest.XLA(t, 1)
	dir := t.TempDir()
	b := must(xla.Open(xla.Options{Cache: dir}))
	by := func(f float64) *graph.Graph {
		return must(graph.Build(func(g *graph.Graph) {
			x := g.Input("x", graph.T(dtype.F32, 2))
			g.Output("y", op.Mul(x, op.Like(x, f)))
		}))
	}
	times := func(f float64) float32 {
		return must(run(b, by(f), tensor.Of([]float32{1, 2})))[0].F32()[1]
	}
	files := func() []string { return must(filepath.Glob(filepath.Join(dir, "*.xla"))) }
	if times(3) != 6 || len(files()) != 1 {
		t.Fatalf("%v", files())
	}
	three := files()[0]
	if times(5) != 10 || len(files()) != 2 {
		t.Fatalf("%v", files())
	}
	i := 1 - slices.Index(files(), three)
	five := must(os.ReadFile(files()[i]))
	whole := must(os.ReadFile(three))
	// Another program under its name is run: so the cache is used.
	if err := os.WriteFile(three, five, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := times(3); got != 10 {
		t.Errorf("the cache was not used: %v", got)
	}
	for name, bad := range map[string][]byte{"empty": {}, "cut": whole[:len(whole)/2], "flipped": append(slices.Clone(whole[:len(whole)-1]), whole[len(whole)-1]^1), "foreign": []byte("something else altogether, and long enough to be taken for one: but it is not")} {
		if err := os.WriteFile(three, bad, 0o666); err != nil {
			t.Fatal(err)
		}
		if got := times(3); got != 6 {
			t.Errorf("%s: %v", name, got)
		}
		if now := must(os.ReadFile(three)); len(now) < len(whole)/2 || string(now) == string(bad) {
			t.Errorf("%s: it was not replaced", name)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	if !dl.Available() {
		if _, err := xla.Open(xla.Options{}); !errors.Is(err, dl.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		return
	}
	text := filepath.Join(t.TempDir(), "plugin.so")
	if err := os.WriteFile(text, []byte("no library"), 0o666); err != nil {
		t.Fatal(err)
	}
	for what, o := range map[string]xla.Options{"there is no plugin": {Plugin: text + ".not"}, text: {Plugin: text}} {
		if _, err := xla.Open(o); err == nil || !strings.Contains(err.Error(), what) || !strings.Contains(err.Error(), "docs/xla.md") {
			t.Errorf("error %v; want one with %q and where to read on", err, what)
		}
	}
	t.Setenv(xla.PluginEnv, "/nowhere/plugin.so")
	if got := xla.Find(); !slices.Equal(got, []string{"/nowhere/plugin.so"}) {
		t.Errorf("%v", got)
	}
	if l := xla.List(""); len(l) != 1 || l[0].Error == "" || !strings.Contains(l[0].String(), "cannot be used") {
		t.Errorf("%+v", l)
	}
	t.Setenv(xla.PluginEnv, "")
	home := t.TempDir()
	t.Setenv("VIRTUAL_ENV", home)
	want := filepath.Join(home, "lib/python3.12/site-packages/jax_plugins/xla_cuda13/xla_cuda_plugin.so")
	if err := errors.Join(os.MkdirAll(filepath.Dir(want), 0o777), os.WriteFile(want, nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	if got := xla.Find(); len(got) == 0 || got[0] != want {
		t.Errorf("found %v", got)
	}
}

// What a plugin refuses comes back as an error: too many devices, and a program that needs more memory than there is.
func TestRefusals(t *testing.T) {
	b := backendtest.XLA(t, 1)
	if l := xla.List(""); len(l) != 1 || len(l[0].Devices) == 0 || l[0].API == "" || !strings.Contains(l[0].String(), l[0].Devices[0].Kind) {
		t.Errorf("%+v", l)
	}
	g := must(graph.Build(func(g *graph.Graph) {
		x := op.Iota(g, graph.T(dtype.F32, 1<<40), 0)
		s, _ := op.Sort(op.Mul(x, g.Input("f", graph.T(dtype.F32))), 0, true)
		g.Output("y", op.SliceAxis(s, 0, 0, 1))
	}))
	_, err := run(b, g, tensor.Of([]float32{1}).Reshape())
	if !errors.Is(err, pjrt.ErrOutOfMemory) || !strings.Contains(fmt.Sprint(err), "smaller batch") {
		t.Errorf("4 TiB gave %v", err)
	}
}
