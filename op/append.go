package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// AppendOp writes the newest elements of sequences into memories of fixed room: what a decoder keeps of the keys and values of earlier positions.
var AppendOp *graph.Op

// AppendAttrs are the attributes of AppendOp.
type AppendAttrs struct {
	Ring bool // places begin again behind the last one: that of p is p mod R
}

// Append is memory [B R …] with the T elements of each x [B T …] at places n-T to n, where n is the example's of lengths i32 [B]; those whose place is
// outside of the memory are dropped.
func Append(memory, x, lengths *node) *node {
	return memory.Graph().Apply(AppendOp, AppendAttrs{}, memory, x, lengths)
}

// AppendRing is Append where the memory is a ring: the element of place p lies in place p mod R, over what was there. T is at most R; places before 0 are dropped.
func AppendRing(memory, x, lengths *node) *node {
	return memory.Graph().Apply(AppendOp, AppendAttrs{Ring: true}, memory, x, lengths)
}

// in is the place of p in a memory of r places, r if it has none.
func (a AppendAttrs) in(p, r int) int {
	switch {
	case p < 0 || p >= r && !a.Ring:
		return r
	case a.Ring:
		return p % r
	}
	return p
}

func init() {
	memory := func(bad string, x ...int) graph.Sample {
		return graph.Sample{Name: fmt.Sprint(x), Attrs: AppendAttrs{}, In: types(f32(2, 5, 3), f32(x...), graph.T(dtype.I32, 2)), Data: []*tensor.Tensor{nil, nil, tensor.Of([]int32{5, 1})}, Bad: bad}
	}
	ring := func(lengths ...int32) graph.Sample {
		return graph.Sample{Name: fmt.Sprint("ring ", lengths), Attrs: AppendAttrs{Ring: true}, In: types(f32(len(lengths), 5, 3), f32(len(lengths), 4, 3), graph.T(dtype.I32, len(lengths))), Data: []*tensor.Tensor{nil, nil, tensor.Of(lengths)}}
	}
	long := graph.Sample{Name: "long", Attrs: AppendAttrs{Ring: true}, In: types(f32(2, 5, 3), f32(2, 6, 3), graph.T(dtype.I32, 2)), Data: []*tensor.Tensor{nil, nil, tensor.Of([]int32{6, 7})}, Bad: "at most 5"}
	AppendOp = add(def[AppendAttrs]{
		Name: "append", Doc: "memory [B R …] with elements x [B T …] at places n-T to n, n from i32 [B]; places outside are dropped, or in a ring lie mod R", Kind: graph.Movement,
		Why: "selects by value",
		Infer: func(a AppendAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			m, x := in[0], in[1]
			if len(m.Shape) < 2 || len(x.Shape) != len(m.Shape) || x.DType != m.DType || x.Shape[0] != m.Shape[0] || !x.Shape[2:].Equal(m.Shape[2:]) {
				return nil, fmt.Errorf("takes a memory [B R …] and elements [B T …] of its type, not %v and %v", m, x)
			}
			if want := graph.T(dtype.I32, m.Shape[0]); !in[2].Equal(want) {
				return nil, fmt.Errorf("lengths must be %v, not %v", want, in[2])
			}
			if a.Ring && x.Shape[1] > m.Shape[1] {
				return nil, fmt.Errorf("a ring of %d places takes at most %d elements at a time, not %d", m.Shape[1], m.Shape[1], x.Shape[1])
			}
			return []typ{m}, nil
		},
		Ref: func(a AppendAttrs, in, out []value) {
			m, x := in[0].Type.Shape, in[1].Type.Shape
			inner := m[2:].Size()
			copy(out[0].Data, in[0].Data)
			for b, n := range in[2].Data {
				for t := range x[1] {
					if r := a.in(int(n)-x[1]+t, m[1]); r < m[1] {
						copy(out[0].Data[(b*m[1]+r)*inner:][:inner], in[1].Data[(b*x[1]+t)*inner:][:inner])
					}
				}
			}
		},
		// A memory lives between runs and is written in place: what a run moves are the new elements.
		Bytes: func(_ AppendAttrs, in, _ []typ) (read, written int64) {
			return int64(in[1].Bytes()), int64(in[1].Bytes())
		},
		NoGrad: "it is for the memory of a decoder, which is not trained through",
		Lower: func(a AppendAttrs, b text, in []hlo, _ []typ) []hlo {
			// Elements whose place (example, n-T+t) is outside are dropped by XLA's scatter.
			x, e := in[1], in[2].Elem
			n, t := x.Shape[0], x.Shape[1]
			at := func(v hlo) hlo { return b.Reshape(v, n, t, 1) }
			place := b.Binary("add", b.Iota(e, shape.Of(n, t), 1), b.BroadcastAt(b.Scale("subtract", in[2], float64(t)), shape.Of(n, t), 0))
			if a.Ring { // places before 0 stay negative
				place = b.Select(b.Compare("LT", place, b.Like(place, 0)), place, b.Scale("remainder", place, float64(in[0].Shape[1])))
			}
			places := b.Concat(2, at(b.Iota(e, shape.Of(n, t), 0)), at(place))
			var window []int
			for i := 2; i < len(x.Shape); i++ {
				window = append(window, i)
			}
			last := &stablehlo.Region{Args: []hlo{{Elem: x.Elem}, {Elem: x.Elem}}, Body: func(_ text, in []hlo) []hlo { return in[1:] }}
			return []hlo{b.Scatter(in[0], places, x, last, window, []int{0, 1}, []int{0, 1}, 2)}
		},
		Samples: []graph.Sample{memory("", 2, 2, 3), memory("", 2, 1, 3), memory("", 2, 5, 3), memory("takes a memory", 2, 2, 4), ring(4, 5, 9, 1003), ring(2), long},
	})
}
