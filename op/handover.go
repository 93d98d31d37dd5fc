package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// HandOverOp is where a program hands values on to whoever goes on computing with them, and waits for their gradients.
var HandOverOp *graph.Op

// Link is whom a program hands values over to.
type Link struct {
	// Pass is given the values and fills back with the gradients of those that HandOverAttrs names; the run goes on when it returns. The tensors are the program's own memory.
	Pass func(values, back []*tensor.Tensor)
}

// HandOverAttrs say what comes back.
type HandOverAttrs struct {
	Back []int `json:",omitempty"` // the operands of which a gradient comes back
	Link *Link `json:"-"`          // nil: gradients are zeros
}

func init() {
	HandOverOp = add(def[HandOverAttrs]{
		Name: "hand_over", Doc: "hands values over to another program and gives the gradients that come back; the first result is a 0", Why: "it leaves the program", Kind: graph.Movement,
		Infer: func(a HandOverAttrs, in []typ) ([]typ, error) {
			out := []typ{f32()}
			for _, i := range a.Back {
				switch {
				case i < 0 || i >= len(in):
					return nil, fmt.Errorf("a gradient of operand %d comes back, but there are %d operands", i, len(in))
				case !in[i].DType.IsFloat():
					return nil, fmt.Errorf("a gradient of operand %d comes back, but %v have none", i, in[i].DType)
				}
				out = append(out, in[i])
			}
			return out, nil
		},
		Ref: func(a HandOverAttrs, in, out []value) {
			if a.Link == nil {
				return
			}
			host := func(vs []value) (ts []*tensor.Tensor) {
				for _, v := range vs {
					t := tensor.New(v.Type.DType, v.Type.Shape...)
					for i, x := range v.Data {
						t.Set(i, x)
					}
					ts = append(ts, t)
				}
				return ts
			}
			back := host(out[1:])
			a.Link.Pass(host(in), back)
			for i, t := range back {
				for j := range t.Len() {
					out[1+i].Data[j] = t.At(j)
				}
			}
		},
		NoGrad:  "its results are gradients, of a loss that lies in another program",
		NoLower: "messages between processes are the CPU backend's; XLA has devices of its own (docs/xla.md)",
		Samples: []graph.Sample{
			{Name: "nobody", Attrs: HandOverAttrs{Back: []int{0, 2}}, In: types(f32(3, 5), graph.T(dtype.I32, 4), graph.T(dtype.BF16, 2, 3))},
			{Name: "no gradient", Attrs: HandOverAttrs{}, In: types(f32(0, 3))},
			{Name: "beyond", Attrs: HandOverAttrs{Back: []int{1}}, In: types(f32(3)), Bad: "there are 1 operands"},
			{Name: "integers", Attrs: HandOverAttrs{Back: []int{0}}, In: types(graph.T(dtype.I32, 3)), Bad: "have none"},
		},
	})
}

// HandOver hands values over by a link; back gives the gradients of those with the numbers grads, and done a 0, which keeps the node alive where nothing comes back.
func HandOver(link *Link, grads []int, values ...*node) (done *node, back []*node) {
	n := Apply(HandOverOp, HandOverAttrs{Back: grads, Link: link}, values...)
	for i := range grads {
		back = append(back, n.Part(1+i))
	}
	return n.Part(0), back
}
