package nn

import (
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["Conv1D"] = func() kind { return newConv(1, 0, 0) }
	classes["Conv2D"] = func() kind { return newConv(2, 0, 0) }
	classes["Conv2DTranspose"] = func() kind { return newTranspose(0, 0) }
	classes["DepthwiseConv2D"] = func() kind { return newDepthwise(0) }
}

// geometry is how the filters of a convolution move.
type geometry struct {
	Kernel   lens    `json:"kernel_size"`
	Strides  lens    `json:"strides"`
	Padding  Padding `json:"padding"`
	Dilation lens    `json:"dilation_rate"`
	rank     int     // of the images: 1 or 2
}

func newGeometry(rank, size int) geometry {
	g := geometry{Strides: lens{1}, Padding: Valid, Dilation: lens{1}, rank: rank}
	if size != 0 {
		g.Kernel = lens{size}
	}
	return g
}

func (g *geometry) window() window { return window{&g.Kernel, &g.Strides, &g.Dilation, &g.Padding} }

func (g *geometry) check() error {
	return first(g.Kernel.check("kernel_size", g.rank), g.Strides.check("strides", g.rank), g.Dilation.check("dilation_rate", g.rank), g.Padding.check(g.rank == 1))
}

// attrs are the attributes of the convolution of images of h×w pixels.
func (g *geometry) attrs(h, w, groups int) op.ConvAttrs {
	a := op.ConvAttrs{Stride: g.Strides.two(g.rank), Dilation: g.Dilation.two(g.rank), Groups: groups}
	a.Pad = g.Padding.pads([2]int{h, w}, g.Kernel.two(g.rank), a.Stride, a.Dilation)
	return a
}

// positive checks a count.
func positive(what string, n int) error {
	if n < 1 {
		return fmt.Errorf("%s must be at least 1, not %d", what, n)
	}
	return nil
}

// first is the first error, if there is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

type conv struct {
	Filters int `json:"filters"`
	geometry
	Groups int `json:"groups"`
	weights
}

func newConv(rank, filters, size int) *conv {
	return &conv{filters, newGeometry(rank, size), 1, defaultWeights}
}

// Conv1D is a convolution of sequences [time, features] with filters of size steps.
func Conv1D(filters, size int, opts ...Option) *Layer {
	return layer("Conv1D", newConv(1, filters, size), opts)
}

// Conv2D is a convolution of images [height, width, channels] with filters of size×size pixels.
func Conv2D(filters, size int, opts ...Option) *Layer {
	return layer("Conv2D", newConv(2, filters, size), opts)
}

// Groups cuts the channels of a convolution into n parts that are convolved apart.
func Groups(n int) Option {
	return setting{"Groups", func(k kind) bool {
		c, ok := k.(*conv)
		if ok {
			c.Groups = n
		}
		return ok
	}}
}

func (k *conv) check() error {
	err := first(positive("filters", k.Filters), positive("groups", k.Groups), k.geometry.check(), k.weights.check())
	if err == nil && k.Filters%k.Groups != 0 {
		err = fmt.Errorf("%d filters cannot be cut into %d groups", k.Filters, k.Groups)
	}
	return err
}

func (k *conv) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, x, k.rank)
	s := in.Shape()
	if s[3]%k.Groups != 0 || s[3] == 0 {
		c.Fail("the %d channels of %v cannot be cut into %d groups", s[3], x[0].Shape(), k.Groups)
	}
	size := k.Kernel.two(k.rank)
	dims := []int{size[0], size[1], s[3] / k.Groups, k.Filters}
	var w *graph.Node
	if k.rank == 1 { // kept as Keras has it: [size, in, out]
		w = op.Reshape(c.Param("kernel", k.KernelInit, true, dims[1:]...), dims...)
	} else {
		w = c.Param("kernel", k.KernelInit, true, dims...)
	}
	y := op.Conv(in, c.round(w), k.attrs(s[1], s[2], k.Groups))
	return unspatial(k.finish(c, y, k.Filters), k.rank)
}

type convTranspose struct {
	Filters int `json:"filters"`
	geometry
	weights
}

func newTranspose(filters, size int) *convTranspose {
	return &convTranspose{filters, newGeometry(2, size), defaultWeights}
}

// Conv2DTranspose goes the way of a convolution backwards: its strides enlarge images. Results are n·stride long with padding Same,
// n·stride + max(size-stride, 0) with Valid, size counting dilation.
func Conv2DTranspose(filters, size int, opts ...Option) *Layer {
	return layer("Conv2DTranspose", newTranspose(filters, size), opts)
}

func (k *convTranspose) check() error {
	return first(positive("filters", k.Filters), k.geometry.check(), k.weights.check())
}

func (k *convTranspose) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, x, 2)
	s := in.Shape()
	size, stride, dilation := k.Kernel.two(2), k.Strides.two(2), k.Dilation.two(2)
	var out [2]int
	for i := range 2 {
		out[i] = s[1+i] * stride[i]
		if k.Padding == Valid {
			out[i] += max((size[i]-1)*dilation[i]+1-stride[i], 0)
		}
	}
	w := c.Param("kernel", k.KernelInit, true, size[0], size[1], k.Filters, s[3])
	y := op.ConvInputGrad(in, w, k.attrs(out[0], out[1], 1), out[0], out[1])
	return k.finish(c, y, k.Filters)
}

type depthwise struct {
	geometry
	Multiplier int         `json:"depth_multiplier"`
	KernelInit Initializer `json:"depthwise_initializer"`
	bias
}

func newDepthwise(size int) *depthwise {
	return &depthwise{newGeometry(2, size), 1, GlorotUniform, defaultBias}
}

// DepthwiseConv2D convolves each channel apart, with as many filters of size×size pixels as DepthMultiplier says (1).
func DepthwiseConv2D(size int, opts ...Option) *Layer {
	return layer("DepthwiseConv2D", newDepthwise(size), opts)
}

// DepthMultiplier sets how many filters each channel of a DepthwiseConv2D has.
func DepthMultiplier(n int) Option {
	return setting{"DepthMultiplier", func(k kind) bool {
		d, ok := k.(*depthwise)
		if ok {
			d.Multiplier = n
		}
		return ok
	}}
}

func (k *depthwise) kernelInit() *Initializer { return &k.KernelInit }

func (k *depthwise) check() error {
	return first(positive("depth_multiplier", k.Multiplier), k.geometry.check(), k.KernelInit.check("depthwise_initializer"), k.bias.check())
}

func (k *depthwise) call(c *Call, x []*graph.Node) *graph.Node {
	in := spatial(c, x, 2)
	s := in.Shape()
	if s[3] == 0 {
		c.Fail("takes images with channels, not %v", s)
	}
	size := k.Kernel.two(2)
	w := c.Param("kernel", k.KernelInit, true, size[0], size[1], s[3], k.Multiplier)
	w = op.Reshape(w, size[0], size[1], 1, s[3]*k.Multiplier)
	return k.finish(c, op.Conv(in, c.round(w), k.attrs(s[1], s[2], s[3])), s[3]*k.Multiplier)
}
