package nn

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Layers of 8-bit integers, which package compress/quant makes of trained ones. They are not trained.
func init() {
	classes["QuantizedDense"] = func() kind { return &quantDense{quantized: quantized{Activation: Linear}} }
	for rank, class := range map[int]string{1: "QuantizedConv1D", 2: "QuantizedConv2D"} {
		classes[class] = func() kind {
			return &quantConv{geometry: newGeometry(rank, 0), Groups: 1, quantized: quantized{Activation: Linear}}
		}
	}
	classes["QuantizedAdd"] = func() kind { return &quantAdd{InScales: []float64{1, 1}, InZeros: []int{0, 0}, Activation: Linear} }
}

// quantized says how a layer's numbers become bytes. An input of bytes must have been made with the same scale and zero.
type quantized struct {
	InScale    float64    `json:"input_scale"`
	InZero     int        `json:"input_zero"`
	OutScale   float64    `json:"output_scale"` // 0: results are floats
	OutZero    int        `json:"output_zero"`
	Activation Activation `json:"activation"` // linear or relu
}

func (q *quantized) check() error {
	if !(q.InScale > 0) || finite("input_scale", q.InScale) != nil || !(q.OutScale >= 0) || finite("output_scale", q.OutScale) != nil {
		return fmt.Errorf("input_scale %g must be a positive number and output_scale %g one from 0 on", q.InScale, q.OutScale)
	}
	if q.InZero < 0 || q.InZero > 255 || q.OutZero < 0 || q.OutZero > 255 {
		return fmt.Errorf("input_zero %d and output_zero %d must be bytes", q.InZero, q.OutZero)
	}
	if q.Activation != Linear && q.Activation != ReLU {
		return unknown("activation of a quantized layer", string(q.Activation), []string{string(Linear), string(ReLU)})
	}
	return nil
}

// bytes are the layer's operand as bytes.
func (q *quantized) bytes(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	switch in.DType() {
	case dtype.U8:
		return in
	case dtype.F32:
		return op.Quantize(in, op.QuantizeAttrs{Scale: q.InScale, Zero: q.InZero})
	}
	c.Fail("takes f32 or bytes, not %v", in.Type())
	return nil
}

func (q *quantized) products() op.QAttrs {
	a := op.QAttrs{Float: q.OutScale == 0, ReLU: q.Activation == ReLU}
	if !a.Float && a.ReLU {
		a.Low, a.ReLU = q.OutZero, false
	}
	return a
}

// weights are the layer's kernel, factors and offsets.
func (q *quantized) weights(c *Call, dims ...int) (w, scale, offset *graph.Node) {
	n := dims[len(dims)-1]
	return c.fixed("kernel", graph.T(dtype.I8, dims...)), c.fixed("scale", graph.T(dtype.F32, n)), c.fixed("offset", graph.T(dtype.F32, n))
}

type quantDense struct {
	Units int `json:"units"`
	quantized
}

func (d *quantDense) check() error { return first(positive("units", d.Units), d.quantized.check()) }

func (d *quantDense) call(c *Call, x []*graph.Node) *graph.Node {
	in := d.bytes(c, x)
	s := in.Shape()
	if len(s) < 2 || s[len(s)-1] == 0 {
		c.Fail("takes [batch … features], not %v", s)
	}
	k := s[len(s)-1]
	w, scale, offset := d.weights(c, k, d.Units)
	y := op.QLinear(op.Reshape(in, s.Size()/k, k), w, scale, offset, d.products())
	return op.Reshape(y, append(s[:len(s)-1].Clone(), d.Units)...)
}

type quantConv struct {
	Filters int `json:"filters"`
	geometry
	Groups int `json:"groups"`
	quantized
}

func (k *quantConv) check() error {
	err := first(positive("filters", k.Filters), positive("groups", k.Groups), k.geometry.check(), k.quantized.check())
	if err == nil && k.Filters%k.Groups != 0 {
		err = fmt.Errorf("%d filters cannot be cut into %d groups", k.Filters, k.Groups)
	}
	return err
}

func (k *quantConv) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, []*graph.Node{k.bytes(c, x)}, k.rank)
	s := in.Shape()
	if s[3] == 0 || s[3]%k.Groups != 0 {
		c.Fail("the %d channels of %v cannot be cut into %d groups", s[3], s, k.Groups)
	}
	size := k.Kernel.two(k.rank)
	dims := []int{size[0], size[1], s[3] / k.Groups, k.Filters}
	w, scale, offset := k.weights(c, dims[2-k.rank:]...) // kept as those of floats
	w = op.Reshape(w, dims...)
	a := k.products()
	a.Conv, a.Zero = k.geometry.attrs(s[1], s[2], k.Groups), k.InZero
	return unspatial(op.QConv(in, w, scale, offset, a), k.rank)
}

// quantAdd adds two values of one shape as bytes.
type quantAdd struct {
	InScales   []float64  `json:"input_scales"`
	InZeros    []int      `json:"input_zeros"`
	OutScale   float64    `json:"output_scale"` // 0: results are floats
	OutZero    int        `json:"output_zero"`
	Activation Activation `json:"activation"` // linear or relu
}

// side is how operand i becomes bytes, and what becomes of results.
func (a *quantAdd) side(i int) *quantized {
	return &quantized{InScale: a.InScales[i], InZero: a.InZeros[i], OutScale: a.OutScale, OutZero: a.OutZero, Activation: a.Activation}
}

func (a *quantAdd) check() error {
	if len(a.InScales) != 2 || len(a.InZeros) != 2 {
		return fmt.Errorf("input_scales and input_zeros must be two each, one for each operand")
	}
	return first(a.side(0).check(), a.side(1).check())
}

func (a *quantAdd) call(c *Call, x []*graph.Node) *graph.Node {
	if len(x) != 2 || !x[0].Shape().Equal(x[1].Shape()) {
		c.Fail("takes two values of one shape")
	}
	first, second := a.side(0), a.side(1)
	p := first.products()
	out, zero := a.OutScale, float64(a.OutZero)
	if p.Float {
		out, zero = 1, 0
	}
	f, g := a.InScales[0]/out, a.InScales[1]/out
	return op.QAdd(first.bytes(c, x[:1]), second.bytes(c, x[1:]), op.QAddAttrs{A: f, B: g, Offset: zero - f*float64(a.InZeros[0]) - g*float64(a.InZeros[1]), Float: p.Float, Low: p.Low, ReLU: p.ReLU})
}
