package pass_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
)

var layout = pass.Pass{Name: "layout", Run: pass.Layout}

// nchw is a network as a tool with images [N C H W] exports it: transposes around every convolution and pooling, channels added to along axis 1, a block with a way around, and a
// dense layer on flattened axes.
func nchw(t *testing.T, back bool) *graph.Graph {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		in, out := []int{0, 2, 3, 1}, []int{0, 3, 1, 2}
		at := op.ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {1, 1}}}
		x := g.Input("x", graph.T(dtype.F32, 2, 3, 8, 8))
		wrt := []*graph.Node{x}
		conv := func(x *graph.Node, filters int) *graph.Node { // filters [O I KH KW]
			w := g.Variable(fmt.Sprint("w", len(wrt)), graph.T(dtype.F32, filters, x.Shape()[1], 3, 3))
			b := g.Variable(fmt.Sprint("b", len(wrt)), graph.T(dtype.F32, filters))
			wrt = append(wrt, w, b)
			y := op.Transpose(op.Conv(op.Transpose(x, in...), op.Transpose(w, 2, 3, 1, 0), at), out...)
			return op.Add(y, op.BroadcastTo(op.Reshape(b, filters, 1, 1), y.Shape()...))
		}
		pool := func(x *graph.Node) *graph.Node {
			return op.Transpose(op.MaxPool(op.Transpose(x, in...), op.PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}), out...)
		}
		a := op.Relu(conv(x, 4))
		b := op.Relu(op.Add(conv(op.Relu(conv(a, 4)), 4), a))
		c := pool(op.Mul(b, op.Like(b, 0.5)))
		c = op.Relu(conv(op.Concat(1, c, op.Neg(c)), 5))
		gap := op.Mean(c, 2, 3) // [2 5]
		w := g.Variable("dense", graph.T(dtype.F32, 5*4*4, 5))
		y := op.Add(op.MatMul(op.Reshape(c, 2, 5*4*4), w), gap)
		loss := op.MeanAll(op.Mul(y, op.Tanh(y)))
		g.Output("y", y)
		if back {
			for i, d := range grad.Of(loss, append(wrt, w)...) {
				g.Output(fmt.Sprint("d", i), d)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// transposes counts what of a graph's transposes is left to do at each run.
func transposes(g *graph.Graph) (n int) {
	fixed, live := pass.Fixed(g), g.Live()
	for i, x := range g.Nodes() {
		if x.Op() == op.TransposeOp && live[i] && !fixed[i] {
			n++
		}
	}
	return n
}

func TestLayoutOfImages(t *testing.T) {
	for _, back := range []bool{false, true} {
		g := nchw(t, back)
		h, err := pass.Apply(g, pass.Standard...)
		if err != nil {
			t.Fatal(err)
		}
		// One transpose is left of the images that come in. Backward there are those of the gradients that go out, of x and of four filters, and two where axes are flattened: the gradient of
		// the dense weights reads them in the order that these have.
		want := 1
		if back {
			want = 8
		}
		if n := transposes(h); n > want {
			t.Errorf("back=%v: %d of %d transposes are left, want %d:\n%s", back, n, transposes(g), want, graph.Print(h))
		}
		if a, b := pass.Moved(g), pass.Moved(h); b >= a {
			t.Errorf("back=%v: %d bytes moved, %d before", back, b, a)
		}
		same(t, run(t, h), run(t, g))
	}
}

// Each rule takes its transposes out, or to the end.
func TestLayoutRules(t *testing.T) {
	for _, c := range []struct {
		name  string
		build func(x, y *graph.Node) *graph.Node // x [3 4 5], y [5 3 4]
		left  int
	}{
		{"there and back", func(x, _ *graph.Node) *graph.Node { return op.Transpose(op.Transpose(x, 2, 0, 1), 1, 2, 0) }, 0},
		{"two are one", func(x, _ *graph.Node) *graph.Node { return op.Transpose(op.Transpose(x, 1, 0, 2), 2, 1, 0) }, 1},
		{"elementwise", func(x, _ *graph.Node) *graph.Node {
			return op.Transpose(op.Tanh(op.Neg(op.Transpose(x, 2, 0, 1))), 1, 2, 0)
		}, 0},
		{"two operands", func(x, y *graph.Node) *graph.Node {
			return op.Transpose(op.Mul(op.Transpose(x, 2, 0, 1), op.Exp(op.Transpose(x, 2, 0, 1))), 1, 2, 0)
		}, 0},
		{"another array in the order", func(x, y *graph.Node) *graph.Node { return op.Transpose(op.Mul(op.Transpose(x, 2, 0, 1), y), 1, 2, 0) }, 2},
		{"with a row", func(x, _ *graph.Node) *graph.Node {
			tx := op.Transpose(x, 2, 0, 1)
			return op.Transpose(op.Add(tx, op.BroadcastTo(op.Iota(x.Graph(), graph.T(dtype.F32, 4), 0), tx.Shape()...)), 1, 2, 0)
		}, 0},
		{"with a plane in the other order", func(x, y *graph.Node) *graph.Node {
			tx := op.Transpose(x, 0, 2, 1)
			v := op.Reshape(op.Slice(y, []int{0, 0, 0}, []int{5, 1, 4}, nil), 5, 4)
			return op.Transpose(op.Add(tx, op.BroadcastTo(v, tx.Shape()...)), 0, 2, 1)
		}, 2},
		{"sum", func(x, _ *graph.Node) *graph.Node { return op.Sum(op.Transpose(x, 2, 0, 1), 1) }, 1},
		{"sum that leaves the order", func(x, _ *graph.Node) *graph.Node { return op.ReduceMax(op.Transpose(x, 2, 0, 1), 0) }, 0},
		{"slice, pad, reverse", func(x, _ *graph.Node) *graph.Node {
			y := op.Slice(op.Transpose(x, 2, 0, 1), []int{1, 0, 2}, []int{5, 2, 4}, []int{2, 1, 1})
			y = op.Reverse(op.Pad(y, []int{0, 1, 0}, []int{2, 0, 0}, 3), 0)
			return op.Transpose(y, 1, 2, 0)
		}, 0},
		{"concat", func(x, _ *graph.Node) *graph.Node {
			a, b := op.Transpose(x, 2, 0, 1), op.Transpose(op.Neg(x), 2, 0, 1)
			return op.Transpose(op.Concat(1, a, b), 1, 2, 0)
		}, 0},
		{"reshape that splits", func(x, _ *graph.Node) *graph.Node {
			return op.Transpose(op.Reshape(op.Transpose(x, 2, 0, 1), 5, 3, 2, 2), 1, 2, 3, 0)
		}, 0},
		{"reshape that joins what was together", func(x, _ *graph.Node) *graph.Node {
			return op.Transpose(op.Reshape(op.Transpose(x, 2, 0, 1), 5, 12), 1, 0)
		}, 0},
		{"reshape that joins what was apart", func(x, _ *graph.Node) *graph.Node { return op.Reshape(op.Transpose(x, 1, 0, 2), 12, 5) }, 1},
		{"reshape with ones", func(x, _ *graph.Node) *graph.Node {
			return op.Transpose(op.Reshape(op.Transpose(x, 2, 0, 1), 1, 5, 1, 12, 1), 0, 3, 2, 1, 4)
		}, 0},
		{"product", func(x, y *graph.Node) *graph.Node {
			return op.Dot(op.Transpose(x, 0, 2, 1), y, op.DotAttrs{ContractA: []int{2}, ContractB: []int{2}})
		}, 1}, // x as it lies is no matrix
		{"product over the first axes", func(x, y *graph.Node) *graph.Node {
			return op.Dot(op.Transpose(x, 2, 0, 1), op.Transpose(x, 2, 0, 1), op.DotAttrs{ContractA: []int{1, 2}, ContractB: []int{1, 2}})
		}, 0},
		{"batch of products", func(x, y *graph.Node) *graph.Node {
			return op.Dot(op.Transpose(x, 0, 2, 1), op.Transpose(y, 1, 0, 2), op.DotAttrs{BatchA: []int{0}, BatchB: []int{0}, ContractA: []int{1}, ContractB: []int{1}})
		}, 1}, // y's batch axis lies between
		{"product, transposed", func(x, y *graph.Node) *graph.Node {
			return op.Transpose(op.Dot(x, y, op.DotAttrs{ContractA: []int{2}, ContractB: []int{0}}), 2, 3, 0, 1)
		}, 0},
		{"heads", func(x, _ *graph.Node) *graph.Node { // [B T H·D] → [B H T D] and back
			h := op.Transpose(op.Reshape(x, 3, 2, 2, 5), 0, 2, 1, 3)
			return op.Reshape(op.Transpose(op.Mul(h, op.Like(h, 0.5)), 0, 2, 1, 3), 3, 4, 5)
		}, 0},
	} {
		g, err := graph.Build(func(g *graph.Graph) {
			g.Output("out", c.build(g.Input("x", graph.T(dtype.F32, 3, 4, 5)), g.Input("y", graph.T(dtype.F32, 5, 3, 4))))
		})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		h, err := pass.Apply(g, layout)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if n := transposes(h); n != c.left {
			t.Errorf("%s: %d transposes are left, want %d\n%s", c.name, n, c.left, graph.Print(h))
		}
		same(t, run(t, h), run(t, g))
	}
}

// Flattened axes of a transposed image take the dense layer's weights along, which are brought into the other order once.
func TestLayoutOfFlattenedAxes(t *testing.T) {
	for name, product := range map[string]func(x, w *graph.Node) *graph.Node{
		"x·w": func(x, w *graph.Node) *graph.Node { return op.MatMul(x, w) },
		"w·x": func(x, w *graph.Node) *graph.Node {
			return op.Dot(w, x, op.DotAttrs{ContractA: []int{0}, ContractB: []int{1}})
		},
	} {
		for _, changes := range []bool{false, true} {
			g, err := graph.Build(func(g *graph.Graph) {
				x, w := g.Input("x", graph.T(dtype.F32, 2, 4, 5, 3)), g.Variable("w", graph.T(dtype.F32, 60, 7))
				g.Output("y", product(op.Reshape(op.Transpose(x, 0, 3, 1, 2), 2, 60), w))
				if changes {
					g.Update(w, op.Neg(w))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			h, err := pass.Apply(g, layout)
			if err != nil {
				t.Fatal(err)
			}
			want := 0
			if changes {
				want = 1
			}
			if n := transposes(h); n != want {
				t.Errorf("%s, changes %v: %d transposes are left, want %d\n%s", name, changes, n, want, graph.Print(h))
			}
			same(t, run(t, h), run(t, g))
		}
	}
}

// Random programs of transposes and what they may pass give the same numbers, and never move more bytes.
func TestLayoutProperties(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		var says []string
		g, err := graph.Build(func(g *graph.Graph) {
			have := []*graph.Node{g.Input("x", graph.T(dtype.F32, 2, 3, 4, 2)), g.Input("y", graph.T(dtype.F32, 4, 2, 3)), g.Variable("w", graph.T(dtype.F32, 3, 4, 2))}
			for range 4 + r.IntN(12) {
				x := have[len(have)-1-r.IntN(min(4, len(have)))]
				if y := randomStep(r, g, x, have); y != nil && y.Shape().Size() <= 4000 {
					have = append(have, y)
					says = append(says, fmt.Sprint(y.Op().Name, y.Shape()))
				}
			}
			for i, x := range have[3:] {
				if i == len(have)-4 || r.IntN(4) == 0 {
					g.Output(fmt.Sprint("o", i), x)
				}
			}
		})
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, strings.Join(says, "\n"))
		}
		h, err := pass.Apply(g, layout)
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, graph.Print(g))
		}
		if a, b := pass.Moved(g), pass.Moved(h); b > a {
			t.Errorf("seed %d: %d bytes moved, %d before", seed, b, a)
		}
		same(t, run(t, h), run(t, g))
		if t.Failed() {
			t.Fatalf("seed %d\n%s\nbecame\n%s", seed, graph.Print(g), graph.Print(h))
		}
	}
}

// randomStep adds to g something that reads x; nil if it does not suit.
func randomStep(r *rand.Rand, g *graph.Graph, x *graph.Node, have []*graph.Node) *graph.Node {
	sh := x.Shape()
	axis := func() int { return r.IntN(len(sh)) }
	if len(sh) == 0 {
		return nil
	}
	switch r.IntN(11) {
	case 0, 1, 2, 3:
		return op.Transpose(x, r.Perm(len(sh))...)
	case 4:
		return op.Tanh(x)
	case 5: // with another of its shape
		for _, y := range have {
			if y != x && y.Shape().Equal(sh) {
				return op.Add(x, y)
			}
		}
		return op.Mul(x, op.Like(x, 0.5))
	case 6: // with a broadcast along random axes
		from := sh.Clone()
		for i := range from {
			if r.IntN(2) == 0 {
				from[i] = 1
			}
		}
		return op.Sub(x, op.BroadcastTo(op.Reshape(op.Iota(g, graph.T(dtype.F32, from.Size()), 0), from...), sh...))
	case 7:
		if len(sh) < 2 {
			return nil
		}
		return op.Sum(x, axis())
	case 8: // a reshape that joins two axes or splits one
		i := axis()
		to := slices.Clone([]int(sh))
		if i+1 < len(to) && r.IntN(2) == 0 {
			to[i] *= to[i+1]
			to = slices.Delete(to, i+1, i+2)
		} else if to[i]%2 == 0 {
			to[i] /= 2
			to = slices.Insert(to, i+r.IntN(2), 2)
		} else {
			to = slices.Insert(to, i, 1)
		}
		return op.Reshape(x, to...)
	case 9: // a product over one axis
		for _, y := range have {
			for j, d := range y.Shape() {
				if i := axis(); sh[i] == d && len(sh)+len(y.Shape()) < 8 {
					return op.Dot(x, y, op.DotAttrs{ContractA: []int{i}, ContractB: []int{j}})
				}
			}
		}
		return nil
	}
	i := axis()
	lo, hi := make([]int, len(sh)), make([]int, len(sh))
	lo[i], hi[axis()] = r.IntN(2), 1
	switch r.IntN(3) {
	case 0:
		return op.Pad(x, lo, hi, 1)
	case 1:
		return op.Reverse(x, i)
	}
	return op.Concat(i, x, x)
}
