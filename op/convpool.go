package op

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
)

// A convolution, bias, rectifier and max pooling as one node, and its gradients. Pass fuse makes them: what lies between the convolution and the pooled
// result never reaches memory, and the gradient behind a maximum and a rectifier is not zero at more than one pixel of each window.
var ConvPoolOp, ConvPoolFilterGradOp, ConvPoolInputGradOp *graph.Op

// ConvPoolAttrs are the attributes of the three ops.
type ConvPoolAttrs struct {
	Conv ConvAttrs // In and Kernel are set as for the gradients of a convolution
	Pool PoolAttrs
}

// dead is the index that says that no pixel of a window was above zero.
func (a ConvPoolAttrs) dead() int { return a.Pool.Window[0] * a.Pool.Window[1] }

// infer gives the shapes of the convolution's result and of the pooled one.
func (a ConvPoolAttrs) infer(x, w typ) (conv, pooled typ, err error) {
	if a.Pool.Pad != ([2][2]int{}) {
		return conv, pooled, fmt.Errorf("pooling with padding is not fused")
	}
	if conv, err = a.Conv.infer(x, w); err != nil {
		return conv, pooled, err
	}
	pooled, err = a.Pool.infer(conv)
	return conv, pooled, err
}

// alive visits every gradient that passes: positions in dy and of the pixel of the convolution's result that it belongs to.
func (a ConvPoolAttrs) alive(idx value, conv typ, f func(pooled, pixel int)) {
	index(idx.Type.Shape, func(ix []int, i int) {
		k := int(idx.Data[i])
		if k >= a.dead() {
			return
		}
		y := ix[1]*a.Pool.Stride[0] + k/a.Pool.Window[1]
		x := ix[2]*a.Pool.Stride[1] + k%a.Pool.Window[1]
		f(i, ((ix[0]*conv.Shape[1]+y)*conv.Shape[2]+x)*conv.Shape[3]+ix[3])
	})
}

// dense is the gradient for the convolution's result.
func (a ConvPoolAttrs) dense(idx, d value, conv typ) value {
	g := value{Type: conv, Data: make([]float64, conv.Shape.Size())}
	a.alive(idx, conv, func(pooled, pixel int) { g.Data[pixel] += d.Data[pooled] })
	return g
}

const cpuOnly = "pass fuse of the CPU makes it; XLA is given the graph from before, and fuses by itself"

const fusedOnly = "pass fuse makes it, after differentiation"

func init() {
	a := ConvPoolAttrs{Conv: plain, Pool: PoolAttrs{Window: [2]int{2, 2}, Stride: [2]int{2, 2}}}
	ConvPoolOp = add(def[ConvPoolAttrs]{
		Name: "conv_pool", Doc: "max_pool(relu(conv(x, w) + bias)), and for each result the u8 position of its pixel in the window (row-major), or the window's size where none was above zero",
		Why: "the positions are not a result of its parts", Kind: graph.Contraction, NoGrad: fusedOnly, NoLower: cpuOnly,
		Infer: func(a ConvPoolAttrs, in []typ) ([]typ, error) {
			if err := sameType(in, 3, dtype.Type.IsFloat, "it must be a float"); err != nil {
				return nil, err
			}
			_, y, err := a.infer(in[0], in[1])
			if err == nil && (len(in[2].Shape) != 1 || in[2].Shape[0] != y.Shape[3]) {
				err = fmt.Errorf("the bias must be [%d], not %v", y.Shape[3], in[2].Shape)
			}
			return []typ{y, {DType: dtype.U8, Shape: y.Shape}}, err
		},
		Ref: func(a ConvPoolAttrs, in, out []value) {
			ct, _, _ := a.infer(in[0].Type, in[1].Type)
			c := value{Type: ct, Data: make([]float64, ct.Shape.Size())}
			o := ct.Shape[3]
			for i := range c.Data {
				c.Data[i] = in[2].Data[i%o]
			}
			a.Conv.walk(in[0].Type, in[1].Type, ct, func(x, w, y int) { c.Data[y] += in[0].Data[x] * in[1].Data[w] })
			a.Pool.walk(ct, out[0].Type, func(y int, px []int) {
				best := argmaxOf(c.Data, px)
				out[0].Data[y], out[1].Data[y] = max(0, c.Data[best]), float64(a.dead())
				if c.Data[best] > 0 {
					for k, p := range px {
						if p == best {
							out[1].Data[y] = float64(k)
						}
					}
				}
			})
		},
		FLOPs: func(a ConvPoolAttrs, in, out []typ) int64 {
			c, _, err := a.infer(in[0], in[1])
			if err != nil {
				return 0
			}
			return convFLOPs(c, in[1]) + 2*int64(c.Shape.Size()) + int64(out[0].Shape.Size()*a.dead())
		},
		Samples: []graph.Sample{{Name: "first layer", Attrs: a, In: types(f32(2, 10, 10, 1), f32(3, 3, 1, 32), f32(32))},
			{Name: "odd", Attrs: a, In: types(f32(3, 13, 13, 32), f32(3, 3, 32, 64), f32(64))},
			{Name: "narrow", Attrs: a, In: types(f32(1, 7, 9, 3), f32(3, 3, 3, 5), f32(5))},
			{Name: "bias", Attrs: a, In: types(f32(1, 7, 9, 3), f32(3, 3, 3, 5), f32(4)), Bad: "must be [5]"}},
	})
	filter := a
	filter.Conv.Kernel = [2]int{3, 3}
	ConvPoolFilterGradOp = add(def[ConvPoolAttrs]{
		Name: "conv_pool_filter_grad", Doc: "from images x, the positions of conv_pool and the gradient d of its result: gradients for filters and bias", Why: "as conv_pool",
		Kind: graph.Contraction, NoGrad: fusedOnly, NoLower: cpuOnly,
		Infer: func(a ConvPoolAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if len(in[0].Shape) != 4 || len(in[2].Shape) != 4 || a.Conv.Groups < 1 || a.Conv.Kernel[0] < 1 || a.Conv.Kernel[1] < 1 {
				return nil, fmt.Errorf("takes images and a gradient [N H W C], not %v and %v", in[0].Shape, in[2].Shape)
			}
			w := graph.T(in[0].DType, a.Conv.Kernel[0], a.Conv.Kernel[1], in[0].Shape[3]/a.Conv.Groups, in[2].Shape[3])
			return []typ{w, graph.T(in[0].DType, in[2].Shape[3])}, a.pair(in[0], w, in[1], in[2])
		},
		Ref: func(a ConvPoolAttrs, in, out []value) {
			ct, _, _ := a.infer(in[0].Type, out[0].Type)
			g := a.dense(in[1], in[2], ct)
			a.Conv.walk(in[0].Type, out[0].Type, ct, func(x, w, y int) { out[0].Data[w] += in[0].Data[x] * g.Data[y] })
			for i, v := range g.Data {
				out[1].Data[i%ct.Shape[3]] += v
			}
		},
		FLOPs: func(a ConvPoolAttrs, in, out []typ) int64 {
			c, _, err := a.infer(in[0], out[0])
			if err != nil {
				return 0
			}
			return convFLOPs(c, out[0])
		},
		Samples: []graph.Sample{{Name: "first layer", Attrs: filter, In: types(f32(2, 10, 10, 1), u8(2, 4, 4, 32), f32(2, 4, 4, 32)), Data: positions(5, 1, 2, 4, 4, 32)},
			{Name: "odd", Attrs: filter, In: types(f32(3, 13, 13, 32), u8(3, 5, 5, 64), f32(3, 5, 5, 64)), Data: positions(5, 1, 3, 5, 5, 64)},
			{Name: "narrow", Attrs: filter, In: types(f32(1, 7, 9, 3), u8(1, 2, 3, 5), f32(1, 2, 3, 5)), Data: positions(5, 1, 1, 2, 3, 5)},
			{Name: "shape", Attrs: filter, In: types(f32(1, 7, 9, 3), u8(1, 2, 3, 5), f32(1, 2, 2, 5)), Bad: "the gradient of its type"}},
	})
	input := a
	input.Conv.In = [2]int{13, 13}
	narrow := a
	narrow.Conv.In = [2]int{7, 9}
	ConvPoolInputGradOp = add(def[ConvPoolAttrs]{
		Name: "conv_pool_input_grad", Doc: "from the positions of conv_pool, the gradient d of its result and filters w: the gradient for the images", Why: "as conv_pool",
		Kind: graph.Contraction, NoGrad: fusedOnly, NoLower: cpuOnly,
		Infer: func(a ConvPoolAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 3); err != nil {
				return nil, err
			}
			if len(in[1].Shape) != 4 || len(in[2].Shape) != 4 {
				return nil, fmt.Errorf("takes a gradient [N H W C] and filters, not %v and %v", in[1].Shape, in[2].Shape)
			}
			x := graph.T(in[1].DType, in[1].Shape[0], a.Conv.In[0], a.Conv.In[1], in[2].Shape[2]*a.Conv.Groups)
			return []typ{x}, a.pair(x, in[2], in[0], in[1])
		},
		Ref: func(a ConvPoolAttrs, in, out []value) {
			ct, _, _ := a.infer(out[0].Type, in[2].Type)
			g := a.dense(in[0], in[1], ct)
			a.Conv.walk(out[0].Type, in[2].Type, ct, func(x, w, y int) { out[0].Data[x] += in[2].Data[w] * g.Data[y] })
		},
		FLOPs: func(a ConvPoolAttrs, in, out []typ) int64 {
			c, _, err := a.infer(out[0], in[2])
			if err != nil {
				return 0
			}
			return convFLOPs(c, in[2])
		},
		Samples: []graph.Sample{{Name: "odd", Attrs: input, In: types(u8(3, 5, 5, 64), f32(3, 5, 5, 64), f32(3, 3, 32, 64)), Data: positions(5, 0, 3, 5, 5, 64)},
			{Name: "narrow", Attrs: narrow, In: types(u8(1, 2, 3, 5), f32(1, 2, 3, 5), f32(3, 3, 3, 5)), Data: positions(5, 0, 1, 2, 3, 5)}},
	})
}

// pair checks positions and gradient against the pooled shape.
func (a ConvPoolAttrs) pair(x, w, idx, d typ) error {
	_, y, err := a.infer(x, w)
	if err != nil {
		return err
	}
	if !y.Equal(d) || idx.DType != dtype.U8 || !idx.Shape.Equal(y.Shape) {
		return fmt.Errorf("the pooled result is %v: positions must be u8 of its shape and the gradient of its type, not %v and %v", y, idx, d)
	}
	return nil
}
