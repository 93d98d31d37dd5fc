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

// Arithmetic on 8-bit integers. An activation u8 q stands for scale·(q - zero); weights are i8. Sums are exact; what follows rounds each operation to f32 apart, so
// that results are the same bits on every machine, and these references compute in f32 too.
var QuantizeOp, QLinearOp, QConvOp, QAddOp, FakeQuantOp *graph.Op

// QuantizeAttrs say how numbers become bytes: min(255, max(0, round(x/Scale) + Zero)), halves to even.
type QuantizeAttrs struct {
	Scale float64
	Zero  int
}

// QAttrs are the attributes of QLinearOp and QConvOp. With acc = Σ x·w, column (or filter) j gives
//
//	u8   min(255, max(Low, round(acc·scale[j] + offset[j])))
//	f32  acc·scale[j] + offset[j], not below 0 if ReLU          (Float)
//
// Zero points are part of the offsets.
type QAttrs struct {
	Float bool
	Low   int
	ReLU  bool
	Conv  ConvAttrs `json:",omitzero"` // of QConvOp
	Zero  int       // of QConvOp: the byte outside of images
	Pool  bool      // of QConvOp: the greatest of each 2×2 results; factors must not be negative
}

func (a QAttrs) result(sh shape.Shape) typ {
	if a.Float {
		return typ{DType: dtype.F32, Shape: sh}
	}
	return typ{DType: dtype.U8, Shape: sh}
}

func (a QAttrs) check() error {
	if a.Low < 0 || a.Low > 255 || a.Zero < 0 || a.Zero > 255 {
		return fmt.Errorf("low %d and zero %d must be bytes", a.Low, a.Zero)
	}
	return nil
}

// finish is a result from the sum of products.
func (a QAttrs) finish(acc float64, scale, offset float64) float64 {
	v := float32(float32(acc)*float32(scale)) + float32(offset)
	switch {
	case !a.Float:
		return math.RoundToEven(float64(min(max(v, float32(a.Low)), 255)))
	case a.ReLU && v < 0:
		return 0
	}
	return float64(v)
}

func (a QAttrs) infer(in []typ, weights, outputs int) error {
	switch {
	case in[0].DType != dtype.U8:
		return fmt.Errorf("takes activations u8, not %v", in[0])
	case in[1].DType != dtype.I8 || len(in[1].Shape) != weights:
		return fmt.Errorf("takes weights i8 of %d axes, not %v", weights, in[1])
	}
	for i, what := range []string{"factors", "offsets"} {
		if want := graph.T(dtype.F32, outputs); !in[2+i].Equal(want) {
			return fmt.Errorf("%s must be %v, not %v", what, want, in[2+i])
		}
	}
	return a.check()
}

// FakeQuant is x rounded to multiples of a scale: scale·round(x/scale), the whole number not below lo nor above hi. Scale, lo and hi broadcast to x. The rounding has the gradient 1 (the straight-through
// estimator, arXiv:1308.3432), so that x learns within the range, and the scale as in arXiv:1902.08153: round(x/scale) - x/scale within, lo or hi outside.
func FakeQuant(x, scale, lo, hi *node) *node {
	s := x.Shape()
	return x.Graph().Apply(FakeQuantOp, nil, x, BroadcastTo(scale, s...), BroadcastTo(lo, s...), BroadcastTo(hi, s...))
}

// Quantize is x as bytes.
func Quantize(x *node, a QuantizeAttrs) *node { return x.Graph().Apply(QuantizeOp, a, x) }

// QLinear is the product of x u8 [M, K] and w i8 [K, N] with factors and offsets f32 [N].
func QLinear(x, w, scale, offset *node, a QAttrs) *node {
	return x.Graph().Apply(QLinearOp, a, x, w, scale, offset)
}

// QConv is the convolution of images x u8 [N, H, W, C] with filters w i8 [KH, KW, C, O], factors and offsets f32 [O].
func QConv(x, w, scale, offset *node, a QAttrs) *node {
	return x.Graph().Apply(QConvOp, a, x, w, scale, offset)
}

// QAddAttrs are the attributes of QAddOp: a·A + b·B + Offset, and then as QAttrs says.
type QAddAttrs struct {
	A, B, Offset float64
	Float        bool
	Low          int
	ReLU         bool
}

// QAdd is the sum of bytes a and b.
func QAdd(x, y *node, a QAddAttrs) *node { return x.Graph().Apply(QAddOp, a, x, y) }

func init() {
	const none8 = "rounding has the gradient 0; training with quantization is another matter"
	QuantizeOp = add(def[QuantizeAttrs]{
		Name: "quantize", Doc: "f32 as bytes: min(255, max(0, round(x/scale) + zero))", Why: "rounds to another type", Kind: graph.Elementwise, HLO: "uniform_quantize", ONNX: "QuantizeLinear",
		Infer: func(a QuantizeAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			if in[0].DType != dtype.F32 {
				return nil, fmt.Errorf("takes f32, not %v", in[0])
			}
			if !(a.Scale > 0) || a.Scale-a.Scale != 0 || a.Zero < 0 || a.Zero > 255 {
				return nil, fmt.Errorf("the scale %g must be a positive number and the zero %d a byte", a.Scale, a.Zero)
			}
			return one(dtype.U8, in[0].Shape)
		},
		Ref: func(a QuantizeAttrs, in, out []value) {
			inverse := 1 / float32(a.Scale)
			for i, x := range in[0].Data {
				v := float32(math.RoundToEven(float64(float32(float32(x)*inverse)))) + float32(a.Zero)
				out[0].Data[i] = float64(uint8(min(max(v, 0), 255)))
			}
		},
		NoGrad: none8,
		Lower: func(a QuantizeAttrs, b text, in []hlo, _ []typ) []hlo {
			v := b.Apart(b.Scale("multiply", in[0], float64(1/float32(a.Scale))))
			v = b.Scale("add", b.Unary("round_nearest_even", v), float64(a.Zero))
			v = b.Scale("minimum", b.Scale("maximum", v, 0), 255)
			return []hlo{b.Convert(b.Convert(v, stablehlo.I32), stablehlo.U8)}
		},
		Samples: []graph.Sample{{Name: "plain", Attrs: QuantizeAttrs{0.01, 100}, In: types(f32(5, 37))}, {Name: "scale", Attrs: QuantizeAttrs{0, 1}, In: types(f32(3)), Bad: "positive number"}},
	})
	FakeQuantOp = add(def[none]{
		Name: "fake_quant", Doc: "x rounded to a scale times whole numbers from lo to hi, all of one shape; the rounding has the gradient 1", Kind: graph.Elementwise, ONNX: "",
		Infer: func(_ none, in []typ) ([]typ, error) {
			if err := sameType(in, 4, dtype.Type.IsFloat, "it takes floats"); err != nil {
				return nil, err
			}
			for _, t := range in[1:] {
				if !t.Equal(in[0]) {
					return nil, fmt.Errorf("operands must have one shape, not %v and %v", in[0].Shape, t.Shape)
				}
			}
			return in[:1], nil
		},
		Decompose: func(_ none, in []*node) []*node {
			v := Max(Min(Div(in[0], in[1]), in[3]), in[2])
			return []*node{Mul(Add(v, StopGradient(Sub(Round(v), v))), in[1])}
		},
		FLOPs: func(_ none, in, _ []typ) int64 { return 6 * int64(in[0].Shape.Size()) },
		Samples: []graph.Sample{
			{Name: "some", In: types(f32(5, 37), f32(5, 37), f32(5, 37), f32(5, 37)), Lo: 0.1, Hi: 3, NoGrad: true},
			{Name: "shapes", In: types(f32(5), f32(1), f32(5), f32(5)), Bad: "one shape"},
		},
	})
	u8 := func(dims ...int) typ { return graph.T(dtype.U8, dims...) }
	i8 := func(dims ...int) typ { return graph.T(dtype.I8, dims...) }
	bytes := func(dt dtype.Type, lo, step int, dims ...int) *tensor.Tensor {
		t := tensor.New(dt, dims...)
		for i := range t.Len() {
			t.Set(i, float64(lo+i*step%251))
		}
		return t
	}
	some := func(n int, v float64) *tensor.Tensor {
		t := tensor.New(dtype.F32, n)
		for i := range n {
			t.Set(i, v*(1+float64(i)/float64(n)))
		}
		return t
	}
	QLinearOp = add(def[QAttrs]{
		Name: "qlinear", Doc: "product of bytes x u8 [M K] and w i8 [K N], summed exactly, times factors plus offsets [N]: u8 or f32", Why: "sums of bytes have no float form", Kind: graph.Contraction, ONNX: "QLinearMatMul",
		Infer: func(a QAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 4); err != nil {
				return nil, err
			}
			x, w := in[0].Shape, in[1].Shape
			if len(x) != 2 || len(w) != 2 || x[1] != w[0] || w[0] == 0 || w[1] == 0 {
				return nil, fmt.Errorf("takes x [M K] and w [K N], not %v and %v", in[0], in[1])
			}
			if err := a.infer(in, 2, w[1]); err != nil {
				return nil, err
			}
			return []typ{a.result(shape.Of(x[0], w[1]))}, nil
		},
		Ref: func(a QAttrs, in, out []value) {
			k, n := in[1].Type.Shape[0], in[1].Type.Shape[1]
			for i := range out[0].Data {
				acc := 0.0
				for j := range k {
					acc += in[0].Data[i/n*k+j] * in[1].Data[j*n+i%n]
				}
				out[0].Data[i] = a.finish(acc, in[2].Data[i%n], in[3].Data[i%n])
			}
		},
		FLOPs:  func(_ QAttrs, in, _ []typ) int64 { return 2 * int64(in[0].Shape.Size()) * int64(in[1].Shape[1]) },
		NoGrad: none8,
		Lower: func(a QAttrs, b text, in []hlo, _ []typ) []hlo {
			x, w := b.Convert(in[0], stablehlo.I32), b.Convert(in[1], stablehlo.I32)
			return []hlo{a.finishHLO(b, b.Dot(x, w, nil, nil, []int{1}, []int{0}, stablehlo.I32), in[2], in[3])}
		},
		Samples: []graph.Sample{
			{Name: "bytes", Attrs: QAttrs{Low: 3}, In: types(u8(7, 33), i8(33, 18), f32(18), f32(18)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 7, 33), bytes(dtype.I8, -125, 11, 33, 18), nil, nil}},
			{Name: "floats", Attrs: QAttrs{Float: true, ReLU: true}, In: types(u8(2, 5), i8(5, 3), f32(3), f32(3)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 9, 2, 5), bytes(dtype.I8, -125, 31, 5, 3), nil, nil}},
			{Name: "floats given", In: types(f32(2, 5), i8(5, 3), f32(3), f32(3)), Attrs: QAttrs{}, Bad: "activations u8"},
			{Name: "shapes", In: types(u8(2, 4), i8(5, 3), f32(3), f32(3)), Attrs: QAttrs{}, Bad: "takes x [M K]"},
		},
	})
	plain := ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}
	padded := ConvAttrs{Stride: [2]int{2, 1}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {1, 0}}}
	QConvOp = add(def[QAttrs]{
		Name: "qconv", Doc: "convolution of images of bytes [N H W C] with filters i8 [KH KW C O], summed exactly, times factors plus offsets [O]: u8 or f32", Why: "sums of bytes have no float form", Kind: graph.Contraction, ONNX: "QLinearConv",
		Infer: func(a QAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 4); err != nil {
				return nil, err
			}
			if a.Pool && a.Conv.Groups != 1 {
				return nil, fmt.Errorf("pooling goes with one group, not %d", a.Conv.Groups)
			}
			if len(in[1].Shape) != 4 {
				return nil, fmt.Errorf("takes filters [KH KW C O], not %v", in[1])
			}
			t, err := a.Conv.infer(graph.Type{DType: dtype.F32, Shape: in[0].Shape}, graph.Type{DType: dtype.F32, Shape: in[1].Shape})
			if err != nil {
				return nil, err
			}
			if err := a.infer(in, 4, in[1].Shape[3]); err != nil {
				return nil, err
			}
			if a.Pool {
				s := t.Shape
				if s[1] < 2 || s[2] < 2 {
					return nil, fmt.Errorf("results of %d×%d have no windows of 2×2", s[1], s[2])
				}
				return []typ{a.result(shape.Of(s[0], s[1]/2, s[2]/2, s[3]))}, nil
			}
			return []typ{a.result(t.Shape)}, nil
		},
		Ref: func(a QAttrs, in, out []value) {
			x, w, y := in[0].Type.Shape, in[1].Type.Shape, out[0].Type.Shape
			group := w[3] / a.Conv.Groups
			at := func(n, oy, ox, o int) float64 {
				acc := 0.0
				for ky := range w[0] {
					for kx := range w[1] {
						iy, ix := oy*a.Conv.Stride[0]-a.Conv.Pad[0][0]+ky*a.Conv.Dilation[0], ox*a.Conv.Stride[1]-a.Conv.Pad[1][0]+kx*a.Conv.Dilation[1]
						for c := range w[2] {
							v := float64(a.Zero)
							if iy >= 0 && iy < x[1] && ix >= 0 && ix < x[2] {
								v = in[0].Data[((n*x[1]+iy)*x[2]+ix)*x[3]+o/group*w[2]+c]
							}
							acc += v * in[1].Data[((ky*w[1]+kx)*w[2]+c)*w[3]+o]
						}
					}
				}
				return a.finish(acc, in[2].Data[o], in[3].Data[o])
			}
			for i := range out[0].Data {
				o, ox, oy, n := i%y[3], i/y[3]%y[2], i/y[3]/y[2]%y[1], i/y[3]/y[2]/y[1]
				if !a.Pool {
					out[0].Data[i] = at(n, oy, ox, o)
					continue
				}
				out[0].Data[i] = max(at(n, 2*oy, 2*ox, o), at(n, 2*oy, 2*ox+1, o), at(n, 2*oy+1, 2*ox, o), at(n, 2*oy+1, 2*ox+1, o))
			}
		},
		FLOPs: func(a QAttrs, in, out []typ) int64 {
			n := 2 * int64(out[0].Shape.Size()) * int64(in[1].Shape.Size()/max(1, in[1].Shape[3]))
			if a.Pool {
				n *= 4
			}
			return n
		},
		NoGrad: none8,
		Lower: func(a QAttrs, b text, in []hlo, out []typ) []hlo {
			x, w := b.Convert(in[0], stablehlo.I32), b.Convert(in[1], stablehlo.I32)
			p := a.Conv.Pad
			x = b.Pad(x, float64(a.Zero), []int{0, p[0][0], p[1][0], 0}, []int{0, p[0][1], p[1][1], 0}, make([]int, 4))
			c := a.Conv
			c.Pad = [2][2]int{}
			sh := shape.Of(x.Shape[0], c.out(0, x.Shape[1], w.Shape[0]), c.out(1, x.Shape[2], w.Shape[1]), w.Shape[3])
			y := a.finishHLO(b, c.hloConv(b, x, w, stablehlo.I32, sh), in[2], in[3])
			if a.Pool {
				two := PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}
				return b.ReduceWindow([]hlo{y}, []hlo{b.Scalar(y.Elem, lowest(y.Elem))}, stablehlo.Folded("maximum", y.Elem), two.window())
			}
			return []hlo{y}
		},
		Samples: []graph.Sample{
			{Name: "bytes", Attrs: QAttrs{Conv: plain, Low: 2}, In: types(u8(2, 5, 4, 3), i8(3, 3, 3, 17), f32(17), f32(17)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 2, 5, 4, 3), bytes(dtype.I8, -125, 11, 3, 3, 3, 17), nil, nil}},
			{Name: "padded, floats", Attrs: QAttrs{Conv: padded, Zero: 5, Float: true}, In: types(u8(1, 5, 4, 4), i8(3, 2, 4, 5), f32(5), f32(5)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 1, 5, 4, 4), bytes(dtype.I8, -125, 11, 3, 2, 4, 5), nil, nil}},
			{Name: "pooled", Attrs: QAttrs{Conv: plain, Low: 2, Pool: true}, In: types(u8(2, 7, 6, 1), i8(3, 3, 1, 33), f32(33), f32(33)),
				Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 2, 7, 6, 1), bytes(dtype.I8, -125, 11, 3, 3, 1, 33), some(33, 0.01), some(33, 50)}},
			{Name: "groups", Attrs: QAttrs{Conv: ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 2}, Float: true}, In: types(u8(1, 5, 4, 4), i8(3, 2, 2, 4), f32(4), f32(4)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 1, 5, 4, 4), bytes(dtype.I8, -125, 11, 3, 2, 2, 4), nil, nil}},
			{Name: "depthwise, dilated", Attrs: QAttrs{Conv: ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{2, 1}, Groups: 9, Pad: [2][2]int{{2, 2}, {1, 1}}}, Zero: 3}, In: types(u8(2, 5, 4, 9), i8(3, 3, 1, 9), f32(9), f32(9)),
				Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 2, 5, 4, 9), bytes(dtype.I8, -125, 11, 3, 3, 1, 9), some(9, 0.01), some(9, 50)}},
			{Name: "groups pooled", Attrs: QAttrs{Pool: true, Conv: ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 2}}, In: types(u8(1, 5, 4, 4), i8(3, 2, 2, 4), f32(4), f32(4)), Bad: "one group"},
		},
	})
	QAddOp = add(def[QAddAttrs]{
		Name: "qadd", Doc: "sum of bytes a and b of one shape, each times a factor, plus an offset: u8 or f32", Why: "rounds to another type", Kind: graph.Elementwise, ONNX: "QLinearAdd",
		Infer: func(a QAddAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			if in[0].DType != dtype.U8 || !in[0].Equal(in[1]) {
				return nil, fmt.Errorf("takes two operands u8 of one shape, not %v and %v", in[0], in[1])
			}
			for _, v := range []float64{a.A, a.B, a.Offset} {
				if v-v != 0 {
					return nil, fmt.Errorf("factors and offset must be numbers, not %g", v)
				}
			}
			return []typ{QAttrs{Float: a.Float}.result(in[0].Shape)}, QAttrs{Low: a.Low}.check()
		},
		Ref: func(a QAddAttrs, in, out []value) {
			q := QAttrs{Float: a.Float, Low: a.Low, ReLU: a.ReLU}
			for i, x := range in[0].Data {
				v := float32(float32(x)*float32(a.A)) + float32(float32(in[1].Data[i])*float32(a.B))
				out[0].Data[i] = q.finish(float64(v), 1, a.Offset)
			}
		},
		Lower: func(a QAddAttrs, b text, in []hlo, _ []typ) []hlo {
			part := func(x hlo, f float64) hlo {
				return b.Apart(b.Scale("multiply", b.Convert(x, stablehlo.F32), f))
			}
			sum := b.Scale("add", b.Binary("add", part(in[0], a.A), part(in[1], a.B)), a.Offset)
			return []hlo{QAttrs{Float: a.Float, Low: a.Low, ReLU: a.ReLU}.settleHLO(b, sum)}
		},
		FLOPs:  func(_ QAddAttrs, in, _ []typ) int64 { return 4 * int64(in[0].Shape.Size()) },
		NoGrad: none8,
		Samples: []graph.Sample{
			{Name: "bytes", Attrs: QAddAttrs{A: 0.3, B: 0.7, Offset: -5, Low: 10}, In: types(u8(3, 27), u8(3, 27)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 3, 27), bytes(dtype.U8, 9, 11, 3, 27)}},
			{Name: "floats", Attrs: QAddAttrs{A: 0.3, B: 0.7, Offset: -90, Float: true, ReLU: true}, In: types(u8(3, 27), u8(3, 27)), Data: []*tensor.Tensor{bytes(dtype.U8, 0, 7, 3, 27), bytes(dtype.U8, 9, 11, 3, 27)}},
			{Name: "shapes", Attrs: QAddAttrs{A: 1, B: 1}, In: types(u8(3), u8(1)), Bad: "of one shape"},
		},
	})
}
