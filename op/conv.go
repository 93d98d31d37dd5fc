package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/stablehlo"
	"github.com/jouleml/joule/tensor"
)

// Convolutions. Activations are NHWC, filters are HWIO: [KH, KW, Cin/groups, Cout]. A convolution over one axis has H = KH = 1.
var (
	ConvOp           *graph.Op
	ConvInputGradOp  *graph.Op // also the transposed convolution
	ConvFilterGradOp *graph.Op
)

// ConvAttrs are the attributes of the three convolution ops. Index 0 is the H axis, 1 the W axis.
type ConvAttrs struct {
	Stride   [2]int
	Pad      [2][2]int // zeros before and after
	Dilation [2]int    // distance between filter taps
	Groups   int       // input and output channels are cut into as many parts; Cin groups make it depthwise
	In       [2]int    `json:",omitzero"` // of ConvInputGradOp: H and W of its result
	Kernel   [2]int    `json:",omitzero"` // of ConvFilterGradOp: KH and KW of its result
}

// out is the number of positions at which a filter of k taps fits on n elements along axis i.
func (a ConvAttrs) out(i, n, k int) int {
	reach := (k-1)*a.Dilation[i] + 1
	n += a.Pad[i][0] + a.Pad[i][1]
	if n < reach {
		return 0
	}
	return (n-reach)/a.Stride[i] + 1
}

func (a ConvAttrs) check() error {
	for i := range 2 {
		if a.Stride[i] < 1 || a.Dilation[i] < 1 || a.Pad[i][0] < 0 || a.Pad[i][1] < 0 {
			return fmt.Errorf("stride %v and dilation %v must be at least 1 and padding %v at least 0", a.Stride, a.Dilation, a.Pad)
		}
	}
	if a.Groups < 1 {
		return fmt.Errorf("groups must be at least 1, not %d", a.Groups)
	}
	return nil
}

// SamePad is the padding of Keras's and TensorFlow's "same": ⌈n/stride⌉ results, the odd zero at the end.
func SamePad(n, k, stride, dilation int) [2]int {
	out := (n + stride - 1) / stride
	p := max(0, (out-1)*stride+(k-1)*dilation+1-n)
	return [2]int{p / 2, p - p/2}
}

// conv checks x [N,H,W,C] against w [KH,KW,C/G,O] and gives the shape of the result.
func (a ConvAttrs) infer(x, w typ) (typ, error) {
	if err := a.check(); err != nil {
		return typ{}, err
	}
	if x.DType != w.DType || !x.DType.IsFloat() {
		return typ{}, fmt.Errorf("operands must be floats of one element type, not %v and %v", x.DType, w.DType)
	}
	xs, ws := x.Shape, w.Shape
	if len(xs) != 4 || len(ws) != 4 {
		return typ{}, fmt.Errorf("takes images [N H W C] and filters [KH KW C/groups O], not %v and %v", xs, ws)
	}
	if xs[3] != ws[2]*a.Groups || ws[3]%a.Groups != 0 {
		return typ{}, fmt.Errorf("images have %d channels; filters %v in %d groups take %d and give a multiple of %d", xs[3], ws, a.Groups, ws[2]*a.Groups, a.Groups)
	}
	oh, ow := a.out(0, xs[1], ws[0]), a.out(1, xs[2], ws[1])
	if oh < 1 || ow < 1 {
		return typ{}, fmt.Errorf("a filter of %d×%d (dilation %v) does not fit on images of %d×%d with padding %v", ws[0], ws[1], a.Dilation, xs[1], xs[2], a.Pad)
	}
	return graph.T(x.DType, xs[0], oh, ow, ws[3]), nil
}

// walk visits every product of a convolution: positions in x [N,H,W,C], w [KH,KW,C/G,O] and y [N,OH,OW,O].
func (a ConvAttrs) walk(x, w, y typ, f func(xi, wi, yi int)) {
	xs, ws, ys := x.Shape, w.Shape, y.Shape
	cg, og := ws[2], ws[3]/a.Groups
	for n := range ys[0] {
		for oy := range ys[1] {
			for ox := range ys[2] {
				yb := ((n*ys[1]+oy)*ys[2] + ox) * ys[3]
				for ky := range ws[0] {
					iy := oy*a.Stride[0] - a.Pad[0][0] + ky*a.Dilation[0]
					if iy < 0 || iy >= xs[1] {
						continue
					}
					for kx := range ws[1] {
						ix := ox*a.Stride[1] - a.Pad[1][0] + kx*a.Dilation[1]
						if ix < 0 || ix >= xs[2] {
							continue
						}
						xb := ((n*xs[1]+iy)*xs[2] + ix) * xs[3]
						for o := range ws[3] {
							for c := range cg {
								f(xb+o/og*cg+c, ((ky*ws[1]+kx)*cg+c)*ws[3]+o, yb+o)
							}
						}
					}
				}
			}
		}
	}
}

// convFLOPs counts a multiply and an add for each filter tap, taps on padding included.
func convFLOPs(y, w typ) int64 {
	return 2 * int64(y.Shape.Size()) * int64(w.Shape[0]*w.Shape[1]*w.Shape[2])
}

var (
	plain    = ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1}
	strided  = ConvAttrs{Stride: [2]int{2, 2}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {0, 1}}}
	dilated  = ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{2, 1}, Groups: 1, Pad: [2][2]int{{2, 2}, {1, 1}}}
	grouped  = ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 2}
	depthly  = ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 5, Pad: [2][2]int{{1, 1}, {1, 1}}}
	samePads = ConvAttrs{Stride: [2]int{1, 1}, Dilation: [2]int{1, 1}, Groups: 1, Pad: [2][2]int{{1, 1}, {1, 1}}}
)

// convCases are the geometries that all three ops are tested on: images, filters, attributes.
var convCases = []struct {
	name string
	a    ConvAttrs
	x, w typ
}{
	{"3x3", plain, f32(2, 6, 7, 5), f32(3, 3, 5, 4)},
	{"first layer", plain, f32(2, 8, 8, 1), f32(3, 3, 1, 32)},
	{"1x1", plain, f32(2, 3, 3, 8), f32(1, 1, 8, 16)},
	{"same", samePads, f32(1, 5, 5, 3), f32(3, 3, 3, 17)},
	{"stride 2", strided, f32(2, 7, 6, 3), f32(3, 2, 3, 4)},
	{"dilated", dilated, f32(1, 6, 6, 2), f32(3, 3, 2, 3)},
	{"groups", grouped, f32(1, 4, 5, 4), f32(2, 2, 2, 6)},
	{"depthwise", depthly, f32(1, 5, 4, 5), f32(3, 3, 1, 5)},
	{"depthwise multiplied", depthly, f32(1, 5, 4, 5), f32(3, 3, 1, 10)},
	{"one axis", plain, f32(2, 1, 9, 4), f32(1, 3, 4, 8)},
}

func convSamples(make func(a ConvAttrs, x, w, y typ) graph.Sample) []graph.Sample {
	var out []graph.Sample
	for _, c := range convCases {
		y, err := c.a.infer(c.x, c.w)
		if err != nil {
			panic(err)
		}
		s := make(c.a, c.x, c.w, y)
		s.Name = c.name
		out = append(out, s)
	}
	return out
}

func init() {
	ConvOp = add(def[ConvAttrs]{
		Name: "conv", Doc: "convolution (correlation) of images [N H W C] with filters [KH KW C/groups O], giving [N OH OW O]", Why: "composed of slices and products it would store every patch",
		Kind: graph.Contraction, HLO: "convolution", ONNX: "Conv",
		Infer: func(a ConvAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			y, err := a.infer(in[0], in[1])
			return []typ{y}, err
		},
		Ref: func(a ConvAttrs, in, out []value) {
			a.walk(in[0].Type, in[1].Type, out[0].Type, func(x, w, y int) { out[0].Data[y] += in[0].Data[x] * in[1].Data[w] })
		},
		Grad: func(a ConvAttrs, n *node, d []*node) []*node {
			x, w := n.Input(0), n.Input(1)
			return []*node{ConvInputGrad(d[0], w, a, x.Shape()[1], x.Shape()[2]), ConvFilterGrad(x, d[0], a, w.Shape()[0], w.Shape()[1])}
		},
		FLOPs: func(_ ConvAttrs, in, out []typ) int64 { return convFLOPs(out[0], in[1]) },
		Lower: convolution(ConvAttrs.hloConv),
		Samples: append(convSamples(func(a ConvAttrs, x, w, y typ) graph.Sample { return graph.Sample{Attrs: a, In: types(x, w)} }),
			graph.Sample{Name: "channels", Attrs: plain, In: types(f32(1, 4, 4, 3), f32(3, 3, 4, 8)), Bad: "images have 3 channels"},
			graph.Sample{Name: "too small", Attrs: plain, In: types(f32(1, 2, 2, 3), f32(3, 3, 3, 8)), Bad: "does not fit"},
			graph.Sample{Name: "rank", Attrs: plain, In: types(f32(4, 4, 3), f32(3, 3, 3, 8)), Bad: "takes images"}),
	})
	ConvInputGradOp = add(def[ConvAttrs]{
		Name: "conv_input_grad", Doc: "gradient of a convolution for its images, from d [N OH OW O] and filters [KH KW C/groups O]: a transposed convolution", Why: "as conv",
		Kind: graph.Contraction, ONNX: "ConvTranspose",
		Infer: func(a ConvAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			if len(in[0].Shape) != 4 || len(in[1].Shape) != 4 {
				return nil, fmt.Errorf("takes [N OH OW O] and filters [KH KW C/groups O], not %v and %v", in[0].Shape, in[1].Shape)
			}
			x := graph.T(in[0].DType, in[0].Shape[0], a.In[0], a.In[1], in[1].Shape[2]*a.Groups)
			y, err := a.infer(x, in[1])
			if err != nil {
				return nil, err
			}
			if !y.Shape.Equal(in[0].Shape) {
				return nil, fmt.Errorf("a convolution of %v with %v gives %v, not %v", x.Shape, in[1].Shape, y.Shape, in[0].Shape)
			}
			return []typ{x}, nil
		},
		Ref: func(a ConvAttrs, in, out []value) {
			a.walk(out[0].Type, in[1].Type, in[0].Type, func(x, w, y int) { out[0].Data[x] += in[0].Data[y] * in[1].Data[w] })
		},
		Grad: func(a ConvAttrs, n *node, d []*node) []*node {
			y, w := n.Input(0), n.Input(1)
			return []*node{Conv(d[0], w, a), ConvFilterGrad(d[0], y, a, w.Shape()[0], w.Shape()[1])}
		},
		FLOPs: func(_ ConvAttrs, in, _ []typ) int64 { return convFLOPs(in[0], in[1]) },
		Lower: convolution(ConvAttrs.hloInput),
		Samples: append(convSamples(func(a ConvAttrs, x, w, y typ) graph.Sample {
			a.In = [2]int{x.Shape[1], x.Shape[2]}
			return graph.Sample{Attrs: a, In: types(y, w)}
		}), graph.Sample{Name: "no fit", Attrs: plain, In: types(f32(1, 4, 4, 8), f32(3, 3, 4, 8)), Bad: "does not fit"}),
	})
	ConvFilterGradOp = add(def[ConvAttrs]{
		Name: "conv_filter_grad", Doc: "gradient of a convolution for its filters, from images [N H W C] and d [N OH OW O]", Why: "as conv",
		Kind: graph.Contraction,
		Infer: func(a ConvAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 2); err != nil {
				return nil, err
			}
			if len(in[0].Shape) != 4 || len(in[1].Shape) != 4 || a.Groups < 1 || in[0].Shape[3]%a.Groups != 0 {
				return nil, fmt.Errorf("takes images [N H W C], C a multiple of %d groups, and [N OH OW O], not %v and %v", a.Groups, in[0].Shape, in[1].Shape)
			}
			if a.Kernel[0] < 1 || a.Kernel[1] < 1 {
				return nil, fmt.Errorf("filters of %d×%d taps do not exist", a.Kernel[0], a.Kernel[1])
			}
			w := graph.T(in[0].DType, a.Kernel[0], a.Kernel[1], in[0].Shape[3]/a.Groups, in[1].Shape[3])
			y, err := a.infer(in[0], w)
			if err != nil {
				return nil, err
			}
			if !y.Shape.Equal(in[1].Shape) || in[0].DType != in[1].DType {
				return nil, fmt.Errorf("a convolution of %v with %v gives %v, not %v", in[0], w.Shape, y, in[1])
			}
			return []typ{w}, nil
		},
		Ref: func(a ConvAttrs, in, out []value) {
			a.walk(in[0].Type, out[0].Type, in[1].Type, func(x, w, y int) { out[0].Data[w] += in[0].Data[x] * in[1].Data[y] })
		},
		Grad: func(a ConvAttrs, n *node, d []*node) []*node {
			x, y := n.Input(0), n.Input(1)
			return []*node{ConvInputGrad(y, d[0], a, x.Shape()[1], x.Shape()[2]), Conv(x, d[0], a)}
		},
		FLOPs: func(_ ConvAttrs, in, out []typ) int64 { return convFLOPs(in[1], out[0]) },
		Lower: convolution(ConvAttrs.hloFilter),
		Samples: append(convSamples(func(a ConvAttrs, x, w, y typ) graph.Sample {
			a.Kernel = [2]int{w.Shape[0], w.Shape[1]}
			return graph.Sample{Attrs: a, In: types(x, y)}
		}), graph.Sample{Name: "no fit", Attrs: plain, In: types(f32(1, 4, 4, 8), f32(3, 3, 4, 8)), Bad: "do not exist"}),
	})
}

func normal(a ConvAttrs) ConvAttrs { a.In, a.Kernel = [2]int{}, [2]int{}; return a }

// Conv convolves images x [N H W C] with filters w [KH KW C/groups O].
func Conv(x, w *node, a ConvAttrs) *node { return x.Graph().Apply(ConvOp, normal(a), x, w) }

// ConvInputGrad sends d [N OH OW O] back to images of h×w pixels.
func ConvInputGrad(d, w *node, a ConvAttrs, height, width int) *node {
	a = normal(a)
	a.In = [2]int{height, width}
	return d.Graph().Apply(ConvInputGradOp, a, d, w)
}

// ConvFilterGrad is the gradient for filters of kh×kw taps.
func ConvFilterGrad(x, d *node, a ConvAttrs, kh, kw int) *node {
	a = normal(a)
	a.Kernel = [2]int{kh, kw}
	return x.Graph().Apply(ConvFilterGradOp, a, x, d)
}

// Pooling over windows of images [N H W C].
var (
	MaxPoolOp, MaxPoolGradOp, MaxPoolPickOp *graph.Op
	AvgPoolOp, AvgPoolGradOp                *graph.Op
)

// PoolAttrs are the attributes of the pooling ops. Index 0 is the H axis, 1 the W axis.
type PoolAttrs struct {
	Window, Stride [2]int
	Pad            [2][2]int
	CountPad       bool   // of averages: padding counts as zeros; otherwise the mean is over real pixels
	In             [2]int `json:",omitzero"` // of AvgPoolGradOp: H and W of its result
}

// manyBytes are bytes of all sizes.
func manyBytes(dims ...int) *tensor.Tensor {
	t := tensor.New(dtype.U8, dims...)
	for i := range t.Len() {
		t.Set(i, float64(i*37%256))
	}
	return t
}

func (a PoolAttrs) infer(x typ) (typ, error) {
	if len(x.Shape) != 4 || !x.DType.IsFloat() && x.DType != dtype.U8 {
		return typ{}, fmt.Errorf("takes images [N H W C] of floats, not %v", x)
	}
	o := [2]int{}
	for i := range 2 {
		w, s, p := a.Window[i], a.Stride[i], a.Pad[i]
		if w < 1 || s < 1 || p[0] < 0 || p[1] < 0 || p[0] >= w || p[1] >= w {
			return typ{}, fmt.Errorf("window %v and stride %v must be at least 1, and padding %v less than the window", a.Window, a.Stride, a.Pad)
		}
		n := x.Shape[1+i] + p[0] + p[1]
		if n < w {
			return typ{}, fmt.Errorf("a window of %d×%d does not fit on images of %d×%d with padding %v", a.Window[0], a.Window[1], x.Shape[1], x.Shape[2], a.Pad)
		}
		o[i] = (n-w)/s + 1
	}
	return graph.T(x.DType, x.Shape[0], o[0], o[1], x.Shape[3]), nil
}

// walk visits each window: the position in y, and the positions in x of its pixels in row-major order (reused).
func (a PoolAttrs) walk(x, y typ, f func(yi int, xi []int)) {
	xs, ys := x.Shape, y.Shape
	var buf []int
	index(ys, func(ix []int, yi int) {
		buf = buf[:0]
		for ky := range a.Window[0] {
			iy := ix[1]*a.Stride[0] - a.Pad[0][0] + ky
			for kx := range a.Window[1] {
				jx := ix[2]*a.Stride[1] - a.Pad[1][0] + kx
				if iy >= 0 && iy < xs[1] && jx >= 0 && jx < xs[2] {
					buf = append(buf, ((ix[0]*xs[1]+iy)*xs[2]+jx)*xs[3]+ix[3])
				}
			}
		}
		f(yi, buf)
	})
}

func argmaxOf(x []float64, at []int) int {
	best := at[0]
	for _, i := range at[1:] {
		if x[i] > x[best] {
			best = i
		}
	}
	return best
}

func init() {
	two := PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}
	three := PoolAttrs{Window: [2]int{3, 2}, Stride: [2]int{2, 1}, Pad: [2][2]int{{1, 1}, {0, 1}}}
	counted := three
	counted.CountPad = true
	one1 := func(a PoolAttrs, in []typ) ([]typ, error) {
		if err := operands(in, 1); err != nil {
			return nil, err
		}
		y, err := a.infer(in[0])
		return []typ{y}, err
	}
	windowFLOPs := func(a PoolAttrs, n typ) int64 { return int64(n.Shape.Size()) * int64(a.Window[0]*a.Window[1]) }
	floats1 := func(a PoolAttrs, in []typ) ([]typ, error) {
		if len(in) > 0 && in[0].DType == dtype.U8 {
			return nil, fmt.Errorf("takes images [N H W C] of floats, not %v", in[0])
		}
		return one1(a, in)
	}
	MaxPoolOp = add(def[PoolAttrs]{
		Name: "max_pool", Doc: "greatest pixel of each window of images [N H W C]; padding is never the greatest", Why: "composed of slices it would copy each pixel several times",
		Kind: graph.Reduction, HLO: "reduce_window", ONNX: "MaxPool", Infer: one1,
		Ref: func(a PoolAttrs, in, out []value) {
			a.walk(in[0].Type, out[0].Type, func(y int, x []int) { out[0].Data[y] = in[0].Data[argmaxOf(in[0].Data, x)] })
		},
		Grad: func(a PoolAttrs, n *node, d []*node) []*node {
			return []*node{n.Graph().Apply(MaxPoolGradOp, a, n.Input(0), d[0])}
		},
		FLOPs: func(a PoolAttrs, _, out []typ) int64 { return windowFLOPs(a, out[0]) },
		Lower: func(a PoolAttrs, b text, in []hlo, _ []typ) []hlo {
			return b.ReduceWindow(in, []hlo{b.Scalar(in[0].Elem, lowest(in[0].Elem))}, stablehlo.Folded("maximum", in[0].Elem), a.window())
		},
		Samples: []graph.Sample{{Name: "2x2", Attrs: two, In: types(f32(2, 6, 4, 5))}, {Name: "odd", Attrs: two, In: types(f32(1, 5, 7, 33))}, {Name: "overlapping", Attrs: three, In: types(f32(2, 5, 6, 3))},
			{Name: "bytes", Attrs: three, In: types(graph.T(dtype.U8, 2, 5, 6, 19)), Data: []*tensor.Tensor{manyBytes(2, 5, 6, 19)}},
			{Name: "too small", Attrs: two, In: types(f32(1, 1, 4, 3)), Bad: "does not fit"}},
	})
	MaxPoolGradOp = add(def[PoolAttrs]{
		Name: "max_pool_grad", Doc: "for images x and d of the pooled shape: d sent to the greatest pixel of each window, the first of equals; windows that overlap add up", Why: "as max_pool",
		Kind: graph.Reduction, HLO: "select_and_scatter",
		Infer: func(a PoolAttrs, in []typ) ([]typ, error) { return in[:1], a.pair(in) },
		Ref: func(a PoolAttrs, in, out []value) {
			a.walk(in[0].Type, in[1].Type, func(y int, x []int) { out[0].Data[argmaxOf(in[0].Data, x)] += in[1].Data[y] })
		},
		Grad: func(a PoolAttrs, n *node, d []*node) []*node {
			return []*node{nil, n.Graph().Apply(MaxPoolPickOp, a, n.Input(0), d[0])}
		},
		FLOPs: func(a PoolAttrs, in, _ []typ) int64 { return windowFLOPs(a, in[1]) },
		Lower: func(a PoolAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{b.SelectAndScatter(in[0], in[1], "GE", a.window())}
		},
		Samples: []graph.Sample{{Name: "2x2", Attrs: two, In: types(f32(2, 6, 5, 5), f32(2, 3, 2, 5))}, {Name: "overlapping", Attrs: three, In: types(f32(2, 5, 6, 3), f32(2, 3, 6, 3))}},
	})
	MaxPoolPickOp = add(def[PoolAttrs]{
		Name: "max_pool_pick", Doc: "for images x and v of one shape: v at the place of x's greatest pixel of each window: the gradient of max_pool_grad", Why: "as max_pool",
		Kind: graph.Reduction,
		Infer: func(a PoolAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 2, dtype.Type.IsFloat, "it must be a float"); err != nil {
				return nil, err
			}
			if err := sameShape(in); err != nil {
				return nil, err
			}
			return one1(a, in[:1])
		},
		Ref: func(a PoolAttrs, in, out []value) {
			a.walk(in[0].Type, out[0].Type, func(y int, x []int) { out[0].Data[y] = in[1].Data[argmaxOf(in[0].Data, x)] })
		},
		Grad: func(a PoolAttrs, n *node, d []*node) []*node {
			return []*node{nil, n.Graph().Apply(MaxPoolGradOp, a, n.Input(0), d[0])}
		},
		FLOPs: func(a PoolAttrs, _, out []typ) int64 { return windowFLOPs(a, out[0]) },
		Lower: func(a PoolAttrs, b text, in []hlo, _ []typ) []hlo {
			return []hlo{a.hloPick(b, in[0], in[1])}
		},
		Samples: []graph.Sample{{Name: "2x2", Attrs: two, In: types(f32(2, 6, 5, 5), f32(2, 6, 5, 5))}},
	})
	AvgPoolOp = add(def[PoolAttrs]{
		Name: "avg_pool", Doc: "mean of each window of images [N H W C]", Why: "as max_pool", Kind: graph.Reduction, ONNX: "AveragePool", Infer: floats1,
		Ref: func(a PoolAttrs, in, out []value) {
			a.walk(in[0].Type, out[0].Type, func(y int, x []int) {
				for _, i := range x {
					out[0].Data[y] += in[0].Data[i]
				}
				out[0].Data[y] /= a.count(len(x))
			})
		},
		Grad: func(a PoolAttrs, n *node, d []*node) []*node {
			a.In = [2]int{n.Input(0).Shape()[1], n.Input(0).Shape()[2]}
			return []*node{n.Graph().Apply(AvgPoolGradOp, a, d[0])}
		},
		FLOPs: func(a PoolAttrs, _, out []typ) int64 { return windowFLOPs(a, out[0]) },
		Lower: func(a PoolAttrs, b text, in []hlo, _ []typ) []hlo {
			x := in[0]
			sum := b.ReduceWindow(in, []hlo{b.Scalar(x.Elem, 0)}, stablehlo.Folded("add", x.Elem), a.window())[0]
			return []hlo{a.share(b, sum, [2]int{x.Shape[1], x.Shape[2]})}
		},
		Samples: []graph.Sample{{Name: "2x2", Attrs: two, In: types(f32(2, 6, 5, 5))}, {Name: "overlapping", Attrs: three, In: types(f32(2, 5, 6, 3))}, {Name: "padding counts", Attrs: counted, In: types(f32(2, 5, 6, 3))}},
	})
	AvgPoolGradOp = add(def[PoolAttrs]{
		Name: "avg_pool_grad", Doc: "d of the pooled shape, shared by the pixels of each window", Why: "as max_pool", Kind: graph.Reduction,
		Infer: func(a PoolAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			if len(in[0].Shape) != 4 {
				return nil, fmt.Errorf("takes [N OH OW C], not %v", in[0].Shape)
			}
			x := graph.T(in[0].DType, in[0].Shape[0], a.In[0], a.In[1], in[0].Shape[3])
			return []typ{x}, a.pair([]typ{x, in[0]})
		},
		Ref: func(a PoolAttrs, in, out []value) {
			a.walk(out[0].Type, in[0].Type, func(y int, x []int) {
				for _, i := range x {
					out[0].Data[i] += in[0].Data[y] / a.count(len(x))
				}
			})
		},
		Grad: func(a PoolAttrs, n *node, d []*node) []*node {
			a.In = [2]int{}
			return []*node{n.Graph().Apply(AvgPoolOp, a, d[0])}
		},
		FLOPs: func(a PoolAttrs, in, _ []typ) int64 { return windowFLOPs(a, in[0]) },
		Lower: func(a PoolAttrs, b text, in []hlo, _ []typ) []hlo {
			// Each pixel adds up the windows that it is in: windows of the same size over d, spread by the strides.
			d := a.share(b, in[0], a.In)
			w := stablehlo.Window{Size: []int{1, a.Window[0], a.Window[1], 1}, Stride: []int{1, 1, 1, 1}, Pad: make([][2]int, 4)}
			lo, hi, between := make([]int, 4), make([]int, 4), make([]int, 4)
			for i := range 2 {
				lo[1+i], between[1+i] = a.Window[i]-1-a.Pad[i][0], a.Stride[i]-1
				hi[1+i] = a.In[i] + a.Window[i] - 1 - dilatedLen(d.Shape[1+i], a.Stride[i]) - lo[1+i]
			}
			return b.ReduceWindow([]hlo{b.Pad(d, 0, lo, hi, between)}, []hlo{b.Scalar(d.Elem, 0)}, stablehlo.Folded("add", d.Elem), w)
		},
		Samples: []graph.Sample{{Name: "2x2", Attrs: PoolAttrs{Window: two.Window, Stride: two.Stride, In: [2]int{6, 5}}, In: types(f32(2, 3, 2, 5))},
			{Name: "overlapping", Attrs: PoolAttrs{Window: three.Window, Stride: three.Stride, Pad: three.Pad, In: [2]int{5, 6}}, In: types(f32(2, 3, 6, 3))}},
	})
}

// count is what the sum over a window is divided by when n of its pixels are real.
func (a PoolAttrs) count(n int) float64 {
	if a.CountPad {
		n = a.Window[0] * a.Window[1]
	}
	return float64(n)
}

// pair checks that in[1] has the shape that pooling in[0] gives.
func (a PoolAttrs) pair(in []typ) error {
	if err := sameType(in, 2, dtype.Type.IsFloat, "it must be a float"); err != nil {
		return err
	}
	y, err := a.infer(in[0])
	if err != nil {
		return err
	}
	if !y.Shape.Equal(in[1].Shape) {
		return fmt.Errorf("pooling %v gives %v, not %v", in[0].Shape, y.Shape, in[1].Shape)
	}
	return nil
}

// MaxPool takes the greatest pixel of each window.
func MaxPool(x *node, a PoolAttrs) *node { return x.Graph().Apply(MaxPoolOp, a, x) }

// AvgPool averages each window.
func AvgPool(x *node, a PoolAttrs) *node { return x.Graph().Apply(AvgPoolOp, a, x) }
