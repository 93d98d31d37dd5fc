package op

import (
	"sync"
	"time"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
)

// AllReduceOp joins the processes of a job within a graph. All run the same nodes in the same order.
var AllReduceOp *graph.Op

// Group is the processes that an AllReduce joins. All nodes of a graph and of its gradient may share one.
type Group struct {
	Name string
	Join interface{ AllReduce(x []float32) error } // adds x up over all ranks, in place; package dist has it

	mu    sync.Mutex
	err   error
	apart bool
	took  time.Duration
}

// Err is the first error of a sum since the last call. A kernel cannot fail: after an error sums leave their operands as they are, and whoever runs the program asks here.
func (g *Group) Err() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.err
	g.err = nil
	return err
}

// Apart lets each rank run programs by itself: sums leave their operands as they are.
func (g *Group) Apart(yes bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.apart = yes
}

// Took is how long sums have taken, waiting for other ranks included, since the last call.
func (g *Group) Took() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	took := g.took
	g.took = 0
	return took
}

// Sum adds x up over the ranks.
func (g *Group) Sum(x []float32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil && !g.apart && g.Join != nil {
		begun := time.Now()
		g.err = g.Join.AllReduce(x)
		g.took += time.Since(begun)
	}
}

// AllReduceAttrs say over which processes a value is added up.
type AllReduceAttrs struct {
	Of    string // the group's name, for people
	Group *Group `json:"-"`
}

func init() {
	AllReduceOp = add(def[AllReduceAttrs]{
		Name: "all_reduce", Doc: "x added up in f32 over the processes of a group; its gradient is, too", Why: "it leaves the process", Kind: graph.Other,
		Infer: func(_ AllReduceAttrs, in []typ) ([]typ, error) {
			if err := floats(1)(in); err != nil {
				return nil, err
			}
			return in, nil
		},
		Ref: func(a AllReduceAttrs, in, out []value) {
			copy(out[0].Data, in[0].Data)
			if a.Group == nil {
				return
			}
			x := make([]float32, len(out[0].Data))
			for i, v := range out[0].Data {
				x[i] = float32(v)
			}
			a.Group.Sum(x)
			for i, v := range x {
				out[0].Data[i] = float64(v)
			}
		},
		Grad: func(a AllReduceAttrs, n *node, d []*node) []*node {
			return []*node{Apply(AllReduceOp, a, d[0])}
		},
		NoLower: "messages between processes are the CPU backend's; XLA has devices of its own (docs/xla.md)",
		Samples: []graph.Sample{
			{Name: "alone", Attrs: AllReduceAttrs{Of: "nobody"}, In: types(f32(3, 37))},
			{Name: "none", Attrs: AllReduceAttrs{}, In: types(f32(0, 3))},
			{Name: "type", Attrs: AllReduceAttrs{}, In: types(graph.T(dtype.I32, 3)), Bad: "not supported"},
		},
	})
}

// AllReduce adds x up over the group, where the loss is the sum of all ranks' losses: so is then its gradient.
func AllReduce(x *node, g *Group) *node {
	return Apply(AllReduceOp, AllReduceAttrs{Of: g.Name, Group: g}, x)
}
