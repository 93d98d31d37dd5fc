package folder

import (
	"fmt"
	"image"
	"image/draw"
	"io"
	"math"

	"github.com/jouleml/joule/data"
)

// file is what decoding needs: it reads the head first and then everything.
type file interface {
	io.Reader
	io.Seeker
}

// position says how far a decoder had read.
func position(r file) string {
	at, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (within the first %d bytes)", at)
}

// inflateLimit is more pixels than a byte of a file can stand for: deflate's greatest factor, with 8 pixels in a byte. (A block of 64
// pixels takes JPEG at least a few bits.)
const inflateLimit = 1040 * 8

// maxSide is the greatest width and height that are read, as in JPEG.
const maxSide = 1 << 16

// claimed is the size that the head of a file claims, if the file can hold such a picture at all.
func claimed(name string, r file) (height, width int, err error) {
	c, _, err := image.DecodeConfig(r)
	if err != nil {
		return 0, 0, fmt.Errorf("folder: %s: %w%s", name, err, position(r))
	}
	size, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, fmt.Errorf("folder: %s: %w", name, err)
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return 0, 0, fmt.Errorf("folder: %s: %w", name, err)
	}
	if c.Width <= 0 || c.Height <= 0 || max(c.Width, c.Height) > maxSide || c.Width*c.Height > MaxPixels || int64(c.Width)*int64(c.Height) > size*inflateLimit {
		return 0, 0, fmt.Errorf("folder: %s: claims a picture of %d×%d pixels in %d bytes; at most %d pixels and sides of %d are read, and no more than a file can hold", name, c.Width, c.Height, size, MaxPixels, maxSide)
	}
	return c.Height, c.Width, nil
}

func decode(name string, r file, size Size, dst []float32) error {
	if _, _, err := claimed(name, r); err != nil {
		return err
	}
	m, _, err := image.Decode(r)
	if err != nil {
		return fmt.Errorf("folder: %s: %w%s", name, err, position(r))
	}
	resize(dst, size, m)
	return nil
}

// rows calls f with each row of the picture as f32 [width channels] in [0, 1]. Grey is the luma of ITU-R BT.601, as image/color has it.
func rows(m image.Image, channels int, f func(y int, row []float32)) {
	b := m.Bounds()
	w := b.Dx()
	row := make([]float32, w*channels)
	strip := image.Rect(b.Min.X, b.Min.Y, b.Max.X, b.Min.Y+1)
	grey, colour := image.NewGray(strip), image.NewRGBA(strip)
	for y := range b.Dy() {
		at := image.Pt(b.Min.X, b.Min.Y+y)
		if channels == 1 {
			draw.Draw(grey, strip, m, at, draw.Src)
			for x, v := range grey.Pix[:w] {
				row[x] = data.Unit[v]
			}
		} else {
			draw.Draw(colour, strip, m, at, draw.Src)
			for x := range w {
				from, to := colour.Pix[4*x:][:3], row[3*x:][:3]
				to[0], to[1], to[2] = data.Unit[from[0]], data.Unit[from[1]], data.Unit[from[2]]
			}
		}
		f(y, row)
	}
}

// taps is how one output position is made: weights of source positions from first on; they add up to 1.
type taps struct {
	first   int
	weights []float32
}

// triangle gives the taps of bilinear interpolation from n positions to m, with pixels as intervals whose centres are at halves.
func triangle(n, m int) []taps {
	scale := float64(n) / float64(m)
	reach := math.Max(scale, 1) // half the width of the filter
	out := make([]taps, m)
	for i := range out {
		centre := (float64(i) + 0.5) * scale
		lo := max(0, int(math.Floor(centre-reach)))
		hi := min(n, int(math.Ceil(centre+reach)))
		weights := make([]float64, hi-lo)
		sum := 0.0
		for k := range weights {
			weights[k] = math.Max(0, 1-math.Abs(float64(lo+k)+0.5-centre)/reach)
			sum += weights[k]
		}
		out[i] = taps{lo, make([]float32, len(weights))}
		for k, v := range weights {
			out[i].weights[k] = float32(v / sum)
		}
	}
	return out
}

// resize brings m to the size of dst. Each row of m is brought to the width, and then added to those rows of dst that it has a weight in,
// so the memory does not grow with the height of m.
func resize(dst []float32, size Size, m image.Image) {
	h, w, c := m.Bounds().Dy(), m.Bounds().Dx(), size.channels()
	width := size.Width * c
	if h == size.Height && w == size.Width {
		rows(m, c, func(y int, row []float32) { copy(dst[y*width:], row) })
		return
	}
	across, down := triangle(w, size.Width), triangle(h, size.Height)
	clear(dst)
	narrow := make([]float32, width)
	from := 0 // the rows of dst before this one are complete
	rows(m, c, func(y int, row []float32) {
		clear(narrow)
		for x, t := range across {
			o := narrow[x*c:][:c]
			for k, weight := range t.weights {
				for j, v := range row[(t.first+k)*c:][:c] {
					o[j] += weight * v
				}
			}
		}
		for from < len(down) && down[from].first+len(down[from].weights) <= y {
			from++
		}
		for i := from; i < len(down) && down[i].first <= y; i++ {
			weight := down[i].weights[y-down[i].first]
			for j, v := range narrow {
				dst[i*width+j] += weight * v
			}
		}
	})
	for i, v := range dst {
		dst[i] = min(v, 1) // the rounded weights may add up to a little more than 1
	}
}
