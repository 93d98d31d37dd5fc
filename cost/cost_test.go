package cost_test

import (
	"slices"
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Every op that computes costs something; only with an operand without elements may it cost nothing, even where its results are not empty
// (the sums over no rows).
func TestEveryOpHasAPrice(t *testing.T) {
	for _, o := range op.All() {
		for _, s := range o.Samples {
			if s.Bad != "" {
				continue
			}
			g, err := backendtest.Single(o, s.Attrs, s.In)
			if err != nil {
				t.Fatal(err)
			}
			c := cost.Graph(g)
			elements := 0
			for _, out := range g.Outputs() {
				elements += out.Node.Shape().Size()
			}
			empty := slices.ContainsFunc(s.In, func(t graph.Type) bool { return t.Shape.Size() == 0 })
			if l, ok := s.Attrs.(op.LoopAttrs); ok && l.Steps == 0 {
				empty = true
			}
			if c.FLOPs < 0 || c.Bytes() < 0 || o.Kind != graph.Movement && elements > 0 && !empty && c.FLOPs == 0 {
				t.Errorf("%s/%s costs %+v", o.Name, s.Name, c)
			}
		}
	}
}

func TestProductCost(t *testing.T) {
	for _, batch := range []int{1, 2, 8} {
		g, err := backendtest.Single(op.DotOp, op.DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, []graph.Type{graph.T(dtype.F32, batch, 100), graph.T(dtype.F32, 100, 30)})
		if err != nil {
			t.Fatal(err)
		}
		c := cost.Graph(g)
		if c.FLOPs != int64(2*batch*100*30) || c.Read != int64(4*(batch*100+3000)) || c.Written != int64(4*batch*30) {
			t.Errorf("batch %d: %+v", batch, c)
		}
	}
}

// A product counts as one of a narrow type where both operands are of it, and where it brings its operand to bytes.
func TestArithmeticOfNarrowTypes(t *testing.T) {
	dot := func(x, w dtype.Type) energy.Cost {
		g, err := backendtest.Single(op.DotOp, op.DotAttrs{ContractA: []int{1}, ContractB: []int{0}}, []graph.Type{graph.T(x, 2, 3), graph.T(w, 3, 4)})
		if err != nil {
			t.Fatal(err)
		}
		return cost.Graph(g)
	}
	if c := dot(dtype.F32, dtype.F32); c.BF16 != 0 || c.Int8 != 0 || c.Executed != 48 {
		t.Errorf("f32: %+v", c)
	}
	if c := dot(dtype.BF16, dtype.BF16); c.BF16 != 48 || c.Int8 != 0 {
		t.Errorf("bf16: %+v", c)
	}
	if c := dot(dtype.I8, dtype.I8); c.Int8 != 48 || c.BF16 != 0 {
		t.Errorf("int8: %+v", c)
	}
	a := op.WeightAttrs{Bits: 8, K: 3}
	w, scale := a.Types(4)
	g, err := backendtest.Single(op.QMatMulOp, a, []graph.Type{graph.T(dtype.F32, 2, 3), w, scale})
	if err != nil {
		t.Fatal(err)
	}
	if c := cost.Graph(g); c.Int8 != 48 {
		t.Errorf("weights of 8 bits: %+v", c)
	}
}
