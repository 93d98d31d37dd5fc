// Package ref runs graphs on the float64 references of the op table, one node after another: slow, plain, and the yardstick for every
// other backend.
package ref

import (
	"errors"
	"fmt"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// Backend implements backend.Backend.
type Backend struct{}

// Name is "ref".
func (Backend) Name() string { return "ref" }

// NewState implements backend.Backend.
func (Backend) NewState(vars []backend.Var) (backend.State, error) { return backend.NewHost(vars) }

// Compile implements backend.Backend. The graph is run as it stands, but for ops that only have a decomposition.
func (Backend) Compile(g *graph.Graph, s backend.State, o backend.Options) (backend.Executable, error) {
	if o.Take != nil {
		return nil, errors.New("ref: outputs cannot be taken early")
	}
	g, err := graph.Expand(g)
	if err != nil {
		return nil, fmt.Errorf("ref: %w", err)
	}
	h, err := backend.Bind(g, s)
	if err != nil {
		return nil, err
	}
	return &exec{g: g, state: h, ready: o.Ready, times: make([]backend.NodeTime, len(g.Nodes()))}, nil
}

type exec struct {
	g     *graph.Graph
	state *backend.Host
	ready func(i int)
	times []backend.NodeTime
}

func (e *exec) Run(in, out []*tensor.Tensor) error {
	if err := backend.CheckArgs(e.g, in, out); err != nil {
		return err
	}
	vals := make([][]graph.Value, len(e.g.Nodes()))
	next := 0
	for i, n := range e.g.Nodes() {
		start := time.Now()
		switch n.Op() {
		case graph.OpInput:
			vals[i] = []graph.Value{ValueOf(in[next])}
			next++
		case graph.OpVariable:
			vals[i] = []graph.Value{ValueOf(e.state.Tensor(backend.Var{Name: graph.NameOf(n), Type: n.Type()}))}
		case graph.OpConst:
			vals[i] = []graph.Value{ValueOf(graph.ConstOf(n))}
		case graph.OpPart:
			k := n.Attrs().(graph.PartAttrs).Index
			vals[i] = vals[n.Input(0).ID()][k : k+1]
		default:
			args := make([]graph.Value, len(n.Inputs()))
			for j, x := range n.Inputs() {
				args[j] = vals[x.ID()][0]
			}
			vals[i] = graph.EvalNode(n, args)
		}
		t := &e.times[i]
		t.Node, t.Kernel = n, "reference"
		t.Calls++
		t.Time += time.Since(start)
	}
	for i, o := range e.g.Outputs() {
		store(out[i], vals[o.Node.ID()][0])
		if e.ready != nil {
			e.ready(i)
		}
	}
	for _, u := range e.g.Updates() {
		store(e.state.Tensor(backend.Var{Name: graph.NameOf(u.Var), Type: u.Var.Type()}), vals[u.Value.ID()][0])
		*e.state.Version(graph.NameOf(u.Var))++
	}
	return nil
}

func (e *exec) Profile() []backend.NodeTime { return e.times }

func (e *exec) Reset() { clear(e.times) }

func (e *exec) Memory() int64 { return 0 }

// ValueOf is a tensor's content as float64.
func ValueOf(t *tensor.Tensor) graph.Value {
	return graph.Value{Type: graph.TypeOf(t), Data: t.Floats()}
}

func store(t *tensor.Tensor, v graph.Value) {
	for i, x := range v.Data {
		t.Set(i, x)
	}
}
