package optim_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
)

// Every optimizer steps all parameters, of all sizes and with rates and decay of their own, in one kernel, clipped or not: as the reference does, and with the same bits for any number of threads.
func TestOnePlan(t *testing.T) {
	sizes := [][]int{{40, 70}, {70}, {1}, {3, 3, 2, 8}, {20000}, {5}, {}}
	for name, o := range map[string]*optim.Optimizer{
		"sgd": optim.SGD(0, false), "momentum": optim.SGD(0.9, false, optim.Decay(0.1)), "nesterov": optim.SGD(0.9, true, optim.ClipNorm(0.5)),
		"adam": optim.Adam(optim.GlobalClipNorm(0.5)), "adamw": optim.AdamW(optim.ClipNorm(0.5), optim.GlobalClipNorm(0.7)),
		"rmsprop": optim.RMSprop(0, false, optim.ClipValue(0.1)), "rmsprop all": optim.RMSprop(0.5, true), "rmsprop centered": optim.RMSprop(0, true), "lion": optim.Lion(optim.Decay(0.1)),
	} {
		var params []nn.Param
		g, err := graph.Build(func(g *graph.Graph) {
			var grads []*graph.Node
			for i, s := range sizes {
				p := nn.Param{Name: fmt.Sprint("p", i), Type: graph.T(dtype.F32, s...), Decay: i%2 == 0}
				if i == 3 {
					p.RateFactor = 0.5
				}
				params = append(params, p)
				w := g.Variable(p.Name, p.Type)
				grads = append(grads, op.Sin(op.Mul(w, op.Like(w, 3))))
			}
			o.Build(g, params, grads, g.Input("rate", graph.T(dtype.F32)))
		})
		if err != nil {
			t.Fatal(err)
		}
		vars := backendtest.Vars(g)
		run := func(b backend.Backend, threads int) ([]*tensor.Tensor, []backend.NodeTime) {
			st, err := b.NewState(vars)
			if err != nil {
				t.Fatal(err)
			}
			for i, p := range params {
				x := tensor.New(dtype.F32, p.Type.Shape...)
				for j := range x.Len() {
					x.Set(j, float64((j*7+i)%19-9)/20)
				}
				if err := st.Set(p.Name, x); err != nil {
					t.Fatal(err)
				}
			}
			e, err := b.Compile(g, st, backend.Options{Threads: threads})
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if err := e.Run([]*tensor.Tensor{tensor.Scalar(float32(0.01))}, nil); err != nil {
					t.Fatal(err)
				}
			}
			var out []*tensor.Tensor
			for _, v := range vars {
				x, err := st.Get(v.Name)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, x)
			}
			return out, e.Profile()
		}
		want, _ := run(ref.Backend{}, 1)
		one, profile := run(cpu.Backend{}, 1)
		for i := range want {
			if err := backendtest.Close(one[i], want[i], 1e-4); err != nil {
				t.Errorf("%s: %s: %v", name, vars[i].Name, err)
			}
		}
		steps := 0
		for _, n := range profile {
			if n.Node.Op() == op.UpdateOp {
				steps++
			}
		}
		if steps != 1 {
			t.Errorf("%s: %d kernels take the steps", name, steps)
		}
		for _, threads := range []int{2, 3} {
			got, _ := run(cpu.Backend{}, threads)
			for i := range one {
				if !slices.Equal(got[i].Bytes(), one[i].Bytes()) {
					t.Errorf("%s: %s is of other bits with %d threads", name, vars[i].Name, threads)
				}
			}
		}
	}
}
