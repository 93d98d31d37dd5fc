package op

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// Weights of 8 or 4 bits, of which Group neighbours share a scale: products with floats, which are brought to 8 bits on their way in, and rows of a table.
var QMatMulOp, QRowsOp *graph.Op

// WeightAttrs say how weights [N, K] of few bits are kept: i8 [N, K] from -127 to 127 (-128 counts as -127), or u8 [N, ⌈K/2⌉] with two in a byte, the first in the lower half, each
// 8 more than its value. A weight stands for itself times its scale, of f32 [N, ⌈K/Group⌉].
type WeightAttrs struct {
	Bits  int // 8 or 4
	Group int // a multiple of 8; 0: all of K
	K     int
}

// maxWeightGroup is the most weights of a group: their sums stay within 32 bits.
const maxWeightGroup = 1 << 15

// Check says what is wrong with the attributes.
func (a WeightAttrs) Check() error {
	switch {
	case a.Bits != 8 && a.Bits != 4:
		return fmt.Errorf("weights of %d bits are not supported, only 8 and 4", a.Bits)
	case a.K < 1 || a.Group < 0 || a.Group%8 != 0 || a.group() > maxWeightGroup:
		return fmt.Errorf("groups of %d out of %d weights: they must be a multiple of 8 and at most %d", a.Group, a.K, maxWeightGroup)
	}
	return nil
}

func (a WeightAttrs) group() int {
	if a.Group == 0 {
		return a.K
	}
	return a.Group
}

// Groups is how many scales an output has.
func (a WeightAttrs) Groups() int { return (a.K + a.group() - 1) / a.group() }

// Types are the types of n outputs' weights and scales.
func (a WeightAttrs) Types(n int) (w, scale graph.Type) {
	if w = graph.T(dtype.I8, n, a.K); a.Bits == 4 {
		w = graph.T(dtype.U8, n, (a.K+1)/2)
	}
	return w, graph.T(dtype.F32, n, a.Groups())
}

// at is weight (n, k) without its scale.
func (a WeightAttrs) at(w []float64, n, k int) float64 {
	if a.Bits == 8 {
		return max(-127, w[n*a.K+k])
	}
	b := uint8(w[n*((a.K+1)/2)+k/2])
	return float64(b>>(4*(k%2))&15) - 8
}

// hloUnpack are packed weights [N …] as i32 [N K].
func (a WeightAttrs) hloUnpack(b text, w hlo) hlo {
	n, v := w.Shape[0], b.Convert(w, stablehlo.I32)
	if a.Bits == 8 {
		return b.Scale("maximum", v, -127)
	}
	half := func(x hlo) hlo { return b.Reshape(x, n, w.Shape[1], 1) }
	pairs := b.Concat(2, half(b.Scale("and", v, 15)), half(b.Scale("shift_right_logical", v, 4)))
	return b.Scale("subtract", b.SliceAxis(b.Reshape(pairs, n, 2*w.Shape[1]), 1, 0, a.K), 8)
}

// hloGroups cuts rows [M K] into groups, [M K/group group], with zeros where the last is not full.
func (a WeightAttrs) hloGroups(b text, x hlo) hlo {
	n, g := a.Groups(), a.group()
	x = b.Pad(x, 0, []int{0, 0}, []int{0, n*g - a.K}, []int{0, 0})
	return b.Reshape(x, x.Shape[0], n, g)
}

// check verifies weights and scales and gives the number of outputs.
func (a WeightAttrs) check(w, scale typ) (n int, err error) {
	if err := a.Check(); err != nil {
		return 0, err
	}
	if len(w.Shape) != 2 {
		return 0, fmt.Errorf("takes weights [N K], not %v", w)
	}
	n = w.Shape[0]
	wantW, wantS := a.Types(n)
	if !w.Equal(wantW) || !scale.Equal(wantS) {
		return 0, fmt.Errorf("weights and scales must be %v and %v, not %v and %v", wantW, wantS, w, scale)
	}
	return n, nil
}

// QMatMul is x f32 [M, K] times the transpose of weights [N, K]. Each group of a row of x is brought to 8 bits first: q = round(x·(127/top)) with its greatest magnitude top. The gradient of x is
// that of the product without this rounding; weights have none.
func QMatMul(x, w, scale *node, a WeightAttrs) *node {
	return x.Graph().Apply(QMatMulOp, a, x, w, scale)
}

// QRows are the rows of a table of weights [N, K] at indices i32 of any shape, as floats; an index outside is clamped.
func QRows(w, scale, indices *node, a WeightAttrs) *node {
	return w.Graph().Apply(QRowsOp, a, w, scale, indices)
}

func init() {
	QMatMulOp = add(def[WeightAttrs]{
		Name: "qmatmul", Doc: "product of x f32 [M K], in groups of 8 bits, and weights of 8 or 4 bits [N K] with scales f32 [N K/group]: f32 [M N]", Why: "weights of few bits have no float form", Kind: graph.Contraction, ONNX: "MatMulNBits",
		Infer: func(a WeightAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if in[0].DType != dtype.F32 || len(in[0].Shape) != 2 || in[0].Shape[1] != a.K {
				return nil, fmt.Errorf("takes x f32 [M %d], not %v", a.K, in[0])
			}
			n, err := a.check(in[1], in[2])
			if err != nil {
				return nil, err
			}
			return one(dtype.F32, shape.Of(in[0].Shape[0], n))
		},
		Ref: func(a WeightAttrs, in, out []value) {
			n, groups := in[1].Type.Shape[0], a.Groups()
			q := make([]float64, a.K)
			for m := range in[0].Type.Shape[0] {
				x := in[0].Data[m*a.K:][:a.K]
				for g := range groups {
					lo, hi := g*a.group(), min((g+1)*a.group(), a.K)
					top := 0.0
					for _, v := range x[lo:hi] {
						top = max(top, math.Abs(v))
					}
					if top < 1e-30 {
						continue
					}
					inverse, s := 127/float32(top), float32(top)/127
					for k := lo; k < hi; k++ {
						q[k] = math.RoundToEven(float64(float32(x[k]) * inverse))
					}
					for j := range n {
						acc := 0.0
						for k := lo; k < hi; k++ {
							acc += q[k] * a.at(in[1].Data, j, k)
						}
						y := &out[0].Data[m*n+j]
						*y = float64(float32(*y) + float32(float32(acc)*float32(float32(in[2].Data[j*groups+g])*s)))
					}
				}
			}
		},
		Grad: func(a WeightAttrs, n *node, d []*node) []*node {
			rows := QRows(n.Input(1), n.Input(2), Iota(n.Graph(), graph.T(dtype.I32, n.Input(1).Shape()[0]), 0), a)
			return []*node{MatMul(d[0], rows), nil, nil}
		},
		Lower: func(a WeightAttrs, b text, in []hlo, _ []typ) []hlo {
			n := a.Groups()
			x := a.hloGroups(b, in[0]) // [M n g]
			top := b.Reduce("maximum", b.Unary("abs", x), 0, 2)
			nothing := b.Compare("LT", top, b.Like(top, 1e-30))
			inverse := b.Select(nothing, b.Like(top, 0), b.Binary("divide", b.Like(top, 127), top))
			q := b.Unary("round_nearest_even", b.Binary("multiply", x, b.BroadcastAt(inverse, x.Shape, 0, 1)))
			w := a.hloGroups(b, a.hloUnpack(b, in[1])) // [N n g]
			acc := b.Dot(b.Convert(q, stablehlo.I32), w, []int{1}, []int{1}, []int{2}, []int{2}, stablehlo.I32)
			sh := shape.Of(n, x.Shape[0], w.Shape[0]) // [n M N]
			factor := b.Binary("multiply", b.BroadcastAt(in[2], sh, 2, 0), b.BroadcastAt(b.Scale("divide", top, 127), sh, 1, 0))
			return []hlo{b.Reduce("add", b.Binary("multiply", b.Convert(acc, stablehlo.F32), factor), 0, 0)}
		},
		FLOPs:   func(a WeightAttrs, _, out []typ) int64 { return 2 * int64(out[0].Shape.Size()) * int64(a.K) },
		Samples: weightSamples(func(a WeightAttrs, w, s typ) []typ { return types(f32(3, a.K), w, s) }, 1),
	})
	QRowsOp = add(def[WeightAttrs]{
		Name: "qrows", Doc: "rows of a table of weights of 8 or 4 bits [N K] with scales f32 [N K/group] at indices i32, as floats; an index outside is clamped", Why: "weights of few bits have no float form", Kind: graph.Movement, ONNX: "GatherBlockQuantized",
		Infer: func(a WeightAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if in[2].DType != dtype.I32 {
				return nil, fmt.Errorf("indices must be i32, not %v", in[2].DType)
			}
			if n, err := a.check(in[0], in[1]); err != nil || n == 0 {
				return nil, fmt.Errorf("a table of %v: %w", in[0], err)
			}
			return one(dtype.F32, append(in[2].Shape.Clone(), a.K))
		},
		Ref: func(a WeightAttrs, in, out []value) {
			n := in[0].Type.Shape[0]
			for i, ix := range in[2].Data {
				r := min(max(int(ix), 0), n-1)
				for k := range a.K {
					out[0].Data[i*a.K+k] = float64(float32(a.at(in[0].Data, r, k)) * float32(in[1].Data[r*a.Groups()+k/a.group()]))
				}
			}
		},
		// What is read are the rows, not the table.
		Bytes: func(a WeightAttrs, in, out []typ) (read, written int64) {
			w, s := a.Types(in[2].Shape.Size())
			return int64(w.Bytes() + s.Bytes() + in[2].Bytes()), int64(out[0].Bytes())
		},
		NoGrad: "weights of few bits are not trained",
		Lower: func(a WeightAttrs, b text, in []hlo, out []typ) []hlo {
			r := in[2].Shape.Size()
			ix := b.Reshape(in[2], r)
			w := a.hloGroups(b, a.hloUnpack(b, b.Gather(in[0], ix, 0)))
			rows := b.Binary("multiply", b.Convert(w, stablehlo.F32), b.BroadcastAt(b.Gather(in[1], ix, 0), w.Shape, 0, 1))
			flat := b.Reshape(rows, r, w.Shape[1]*w.Shape[2])
			return []hlo{b.Reshape(b.SliceAxis(flat, 1, 0, a.K), out[0].Shape...)}
		},
		Samples: weightSamples(func(a WeightAttrs, w, s typ) []typ { return types(w, s, graph.T(dtype.I32, 2, 4)) }, 0),
	})
}

// weightSamples are samples whose weights stand at operand at.
func weightSamples(in func(a WeightAttrs, w, s typ) []typ, at int) []graph.Sample {
	var out []graph.Sample
	for _, c := range []struct {
		name string
		n    int
		WeightAttrs
		bad string
	}{
		{"bytes", 18, WeightAttrs{8, 0, 33}, ""}, {"bytes in groups", 5, WeightAttrs{8, 16, 40}, ""}, {"pairs", 7, WeightAttrs{4, 8, 27}, ""}, {"pairs, one group", 33, WeightAttrs{4, 0, 64}, ""},
		{"bits", 5, WeightAttrs{5, 8, 16}, "5 bits"}, {"group", 5, WeightAttrs{8, 12, 24}, "multiple of 8"},
	} {
		w, s := c.Types(c.n)
		if c.bad != "" {
			w, s = graph.T(dtype.I8, c.n, c.K), f32(c.n, 1)
		}
		v := tensor.New(w.DType, w.Shape...)
		for i := range v.Len() {
			if v.Set(i, float64(i*37%256)); w.DType == dtype.I8 {
				v.Set(i, float64(i*37%255-127))
			}
		}
		sample := graph.Sample{Name: c.name, Attrs: c.WeightAttrs, In: in(c.WeightAttrs, w, s), Bad: c.bad, NoGrad: true} // rounding is flat between its steps
		sample.Data = make([]*tensor.Tensor, 3)
		sample.Data[at] = v
		out = append(out, sample)
	}
	return out
}
