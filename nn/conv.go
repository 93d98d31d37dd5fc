package nn

import (
	"encoding/json"
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Padding says what happens at the borders of images: Valid keeps to real pixels, Same pads with zeros to ⌈n/stride⌉ results.
type Padding string

// The paddings.
const (
	Valid Padding = "valid"
	Same  Padding = "same"
)

func (p Padding) apply(l *Layer) {
	setting{"padding " + string(p), func(k kind) bool {
		w, ok := k.(windowed)
		if ok {
			w.geometry().Padding = p
		}
		return ok
	}}.apply(l)
}

// geometry is how a window of size Kernel moves over an image. Zero strides mean the layer's default.
type geometry struct {
	Kernel   pair    `json:"kernel_size"`
	Strides  pair    `json:"strides"`
	Padding  Padding `json:"padding"`
	Dilation pair    `json:"dilation_rate,omitzero"`
}

func (g *geometry) geometry() *geometry { return g }

type windowed interface{ geometry() *geometry }

// pair is a length along height and width; JSON may give one number for both.
type pair [2]int

// UnmarshalJSON reads 3 or [3, 3].
func (p *pair) UnmarshalJSON(b []byte) error {
	var n int
	if json.Unmarshal(b, &n) == nil {
		*p = pair{n, n}
		return nil
	}
	var s []int
	if err := json.Unmarshal(b, &s); err != nil || len(s) < 1 || len(s) > 2 {
		return fmt.Errorf("want a number or two, not %s", b)
	}
	*p = pair{s[0], s[len(s)-1]}
	return nil
}

// Strides sets how far the window moves: one number for both axes, or height and width.
func Strides(s ...int) Option {
	return setting{"Strides", func(k kind) bool {
		w, ok := k.(windowed)
		if ok {
			w.geometry().Strides = twice(s)
		}
		return ok
	}}
}

// Dilation sets the distance between filter taps.
func Dilation(d ...int) Option {
	return setting{"Dilation", func(k kind) bool {
		w, ok := k.(windowed)
		if ok {
			w.geometry().Dilation = twice(d)
		}
		return ok
	}}
}

// Kernel sets a window that is not square.
func Kernel(height, width int) Option {
	return setting{"Kernel", func(k kind) bool {
		w, ok := k.(windowed)
		if ok {
			w.geometry().Kernel = pair{height, width}
		}
		return ok
	}}
}

func twice(s []int) pair {
	if len(s) == 0 {
		return pair{}
	}
	return pair{s[0], s[len(s)-1]}
}

// pads are the zeros before and after each axis of an image of h×w pixels.
func (g *geometry) pads(c *Call, h, w int) [2][2]int {
	switch g.Padding {
	case Valid, "":
		return [2][2]int{}
	case Same:
		return [2][2]int{op.SamePad(h, g.Kernel[0], g.Strides[0], g.Dilation[0]), op.SamePad(w, g.Kernel[1], g.Strides[1], g.Dilation[1])}
	}
	c.Fail("unknown padding %q (known: valid, same)", string(g.Padding))
	return [2][2]int{}
}

func (g *geometry) defaults(stride pair) {
	if g.Strides == (pair{}) {
		g.Strides = stride
	}
	if g.Dilation == (pair{}) {
		g.Dilation = pair{1, 1}
	}
	if g.Padding == "" {
		g.Padding = Valid
	}
}

func (g *geometry) check(c *Call) {
	for i := range 2 {
		if g.Kernel[i] < 1 || g.Strides[i] < 1 || g.Dilation[i] < 1 {
			c.Fail("window %v, strides %v and dilation %v must be at least 1", g.Kernel, g.Strides, g.Dilation)
		}
	}
}

func init() {
	classes["Conv2D"] = func() kind { return &conv2D{weights: defaultWeights, Groups: 1} }
	classes["MaxPooling2D"] = func() kind { return &pool2D{Max: true, geometry: geometry{Kernel: pair{2, 2}}} }
	classes["AveragePooling2D"] = func() kind { return &pool2D{geometry: geometry{Kernel: pair{2, 2}}} }
}

type conv2D struct {
	Filters int `json:"filters"`
	geometry
	Groups int `json:"groups"`
	weights
}

// Conv2D is a convolution of images with filters of size×size pixels.
func Conv2D(filters, size int, opts ...Option) *Layer {
	return layer("Conv2D", &conv2D{filters, geometry{Kernel: pair{size, size}}, 1, defaultWeights}, opts)
}

// image checks that a layer's operand is a batch of images.
func image(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if len(in.Shape()) != 4 {
		c.Fail("takes images [batch height width channels], not %v", in.Shape())
	}
	return in
}

func (k *conv2D) call(c *Call, x []*graph.Node) *graph.Node {
	in := image(c, x)
	k.defaults(pair{1, 1})
	k.check(c)
	s := in.Shape()
	if k.Filters < 1 || k.Groups < 1 || s[3]%k.Groups != 0 || k.Filters%k.Groups != 0 {
		c.Fail("%d filters in %d groups do not divide %d channels", k.Filters, k.Groups, s[3])
	}
	w := c.Param("kernel", k.KernelInit, true, k.Kernel[0], k.Kernel[1], s[3]/k.Groups, k.Filters)
	y := op.Conv(in, w, op.ConvAttrs{Stride: k.Strides, Dilation: k.Dilation, Pad: k.pads(c, s[1], s[2]), Groups: k.Groups})
	return k.finish(c, y, k.Filters)
}

type pool2D struct {
	geometry
	Max bool `json:"-"`
}

// MaxPool2D takes the greatest pixel of each window of size×size, which move by their size unless Strides says otherwise.
func MaxPool2D(size int, opts ...Option) *Layer {
	return layer("MaxPooling2D", &pool2D{geometry{Kernel: pair{size, size}}, true}, opts)
}

// AveragePool2D averages each window. Pixels of padding do not count.
func AveragePool2D(size int, opts ...Option) *Layer {
	return layer("AveragePooling2D", &pool2D{geometry{Kernel: pair{size, size}}, false}, opts)
}

func (p *pool2D) call(c *Call, x []*graph.Node) *graph.Node {
	in := image(c, x)
	p.defaults(p.Kernel)
	p.check(c)
	a := op.PoolAttrs{Window: p.Kernel, Stride: p.Strides, Pad: p.pads(c, in.Shape()[1], in.Shape()[2])}
	if p.Max {
		return op.MaxPool(in, a)
	}
	return op.AvgPool(in, a)
}
