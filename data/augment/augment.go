// Package augment changes pictures at random while they are loaded, so that a network sees each of them in many forms.
//
// Every transform works on the first input of a data set, f32 pictures of shape [height, width, channels], and keeps the shape. Give them
// to data.LoaderConfig.Transforms in the order in which they are to happen. A picture's changes depend on the loader's seed, the epoch
// and the picture's number alone.
package augment

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// picture is one example's pixels, row by row, with the channels of a pixel beside each other.
type picture struct {
	pix     []float32
	h, w, c int
}

// pictures makes a Transform of a function that changes p. old is scratch memory of the same shape.
func pictures(name string, change func(r *rand.Rand, p, old picture)) data.Transform {
	return func(spec data.Spec) (data.Apply, error) {
		if err := spec.Check(); err != nil {
			return nil, err
		}
		f := spec.Inputs[0]
		if len(f.Shape) != 3 || f.DType != dtype.F32 {
			return nil, fmt.Errorf("augment: %s needs f32 pictures of shape [height width channels]; input %q is %v%v", name, f.Name, f.DType, f.Shape)
		}
		h, w, c := f.Shape[0], f.Shape[1], f.Shape[2]
		size := h * w * c
		old := picture{make([]float32, size), h, w, c}
		return func(r *rand.Rand, x, _ []*tensor.Tensor, row int) {
			change(r, picture{x[0].F32()[row*size : (row+1)*size], h, w, c}, old)
		}, nil
	}
}

// fail is a Transform that fits nothing, for a bad argument.
func fail(format string, args ...any) data.Transform {
	return func(data.Spec) (data.Apply, error) { return nil, fmt.Errorf("augment: "+format, args...) }
}

// FlipHorizontal mirrors a picture left to right with probability p.
func FlipHorizontal(p float64) data.Transform {
	if !(p >= 0 && p <= 1) {
		return fail("FlipHorizontal(%v): a probability is between 0 and 1", p)
	}
	return pictures("FlipHorizontal", func(r *rand.Rand, p1, _ picture) {
		if r.Float64() >= p {
			return
		}
		row := p1.w * p1.c
		for y := range p1.h {
			pix := p1.pix[y*row : (y+1)*row]
			for a, b := 0, row-p1.c; a < b; a, b = a+p1.c, b-p1.c {
				for k := range p1.c {
					pix[a+k], pix[b+k] = pix[b+k], pix[a+k]
				}
			}
		}
	})
}

// RandomCrop adds pad zero pixels on each side and cuts the picture's own size out at a random place, which shifts it by up to pad pixels
// either way along both axes.
func RandomCrop(pad int) data.Transform {
	if pad < 0 || pad > 1<<20 {
		return fail("RandomCrop(%d): the padding is a number of pixels", pad)
	}
	return pictures("RandomCrop", func(r *rand.Rand, p, old picture) {
		dy, dx := r.IntN(2*pad+1)-pad, r.IntN(2*pad+1)-pad
		if dy == 0 && dx == 0 {
			return
		}
		copy(old.pix, p.pix)
		clear(p.pix)
		row := p.w * p.c
		lo, hi := max(0, -dx), min(p.w, p.w-dx) // the columns that come from inside the picture
		if lo >= hi {
			return
		}
		for y := max(0, -dy); y < min(p.h, p.h-dy); y++ {
			copy(p.pix[y*row+lo*p.c:y*row+hi*p.c], old.pix[(y+dy)*row+(lo+dx)*p.c:])
		}
	})
}

// Rotate turns a picture about its centre by an angle drawn evenly from ±degrees, with bilinear interpolation; what comes from outside
// is zero.
func Rotate(degrees float64) data.Transform {
	if !(degrees >= 0 && degrees <= 360) {
		return fail("Rotate(%v): the angle is between 0 and 360 degrees", degrees)
	}
	return pictures("Rotate", func(r *rand.Rand, p, old picture) {
		rotate(p, old, (2*r.Float64()-1)*degrees*math.Pi/180)
	})
}

// rotate turns p by angle, in radians, counterclockwise as seen on a screen.
func rotate(p, old picture, angle float64) {
	copy(old.pix, p.pix)
	sin, cos := math.Sincos(angle)
	cy, cx := float64(p.h-1)/2, float64(p.w-1)/2
	for y := range p.h {
		for x := range p.w {
			// Where the pixel comes from. The y axis points down, hence the signs.
			u, v := float64(x)-cx, float64(y)-cy
			sx, sy := cos*u-sin*v+cx, sin*u+cos*v+cy
			x0, y0 := int(math.Floor(sx)), int(math.Floor(sy))
			fx, fy := float32(sx-float64(x0)), float32(sy-float64(y0))
			dst := p.pix[(y*p.w+x)*p.c:][:p.c]
			clear(dst)
			blend(dst, old, y0, x0, (1-fy)*(1-fx))
			blend(dst, old, y0, x0+1, (1-fy)*fx)
			blend(dst, old, y0+1, x0, fy*(1-fx))
			blend(dst, old, y0+1, x0+1, fy*fx)
		}
	}
}

// blend adds weight times the pixel at row y, column x, which is zero outside the picture.
func blend(dst []float32, p picture, y, x int, weight float32) {
	if y < 0 || y >= p.h || x < 0 || x >= p.w {
		return
	}
	for k, v := range p.pix[(y*p.w+x)*p.c:][:p.c] {
		dst[k] += weight * v
	}
}

// Within is ts for pictures that n has normalised already: what the network sees is as if they had been changed first, so that the zeros that ts bring in are black and not the mean colour.
func Within(n data.Norm, ts ...data.Transform) []data.Transform {
	if len(ts) == 0 {
		return nil
	}
	return slices.Concat([]data.Transform{normed(n, n.Unscale)}, ts, []data.Transform{Normalize(n)})
}

// Normalize is n as the last of several transforms, so that the zeros that others bring in are black and not the mean colour. Everything
// else that the network is given must be normalised with n too, by n.Apply.
func Normalize(n data.Norm) data.Transform { return normed(n, n.Scale) }

// normed does f, which is n's scaling or takes it back, to every picture.
func normed(n data.Norm, f func(values []float32)) data.Transform {
	return func(spec data.Spec) (data.Apply, error) {
		if err := n.Fits(spec); err != nil {
			return nil, err
		}
		size := spec.Inputs[0].Shape.Size()
		return func(_ *rand.Rand, x, _ []*tensor.Tensor, row int) {
			f(x[0].F32()[row*size : (row+1)*size])
		}, nil
	}
}
