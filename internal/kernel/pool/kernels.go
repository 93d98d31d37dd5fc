package pool

import (
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
)

// kernels work on a run of count > 0 windows of c channels. Pixel t of the first window is at taps[t] elements from its
// start, nTaps > 0 of them; the next window starts step elements further. The results of the windows follow each other.
type kernels struct {
	max     func(y, x *float32, taps *int, nTaps, step, count, c int)
	sum     func(y, x *float32, taps *int, nTaps, step, count, c int, share float32)
	pick    func(y, x, v *float32, taps *int, nTaps, step, count, c int)
	scatter func(dx, x, dy *float32, taps *int, nTaps, step, count, c, add int)
	spread  func(dx, dy *float32, taps *int, nTaps, step, count, c int, share float32, add int)
}

func newKernels() kernels {
	if l := isa.Current(); l != isa.Portable {
		return vecKernels(l)
	}
	return kernels{maxGo, sumGo, pickGo, scatterGo, spreadGo}
}

// view is the pixels of a run, from where the first window starts.
func view(x *float32, taps []int, step, count, c int) []float32 {
	return unsafe.Slice(x, (count-1)*step+taps[len(taps)-1]+c)
}

// maxGo sets y to the greatest pixel of each window, channel by channel.
func maxGo(y, x *float32, taps *int, nTaps, step, count, c int) {
	at := unsafe.Slice(taps, nTaps)
	in, out := view(x, at, step, count, c), unsafe.Slice(y, count*c)
	for i := range count {
		px := out[i*c:][:c]
		copy(px, in[i*step:])
		for _, t := range at {
			for k, v := range in[i*step+t:][:c] {
				if v > px[k] {
					px[k] = v
				}
			}
		}
	}
}

// sumGo sets y to share times the sum of each window's pixels.
func sumGo(y, x *float32, taps *int, nTaps, step, count, c int, share float32) {
	at := unsafe.Slice(taps, nTaps)
	in, out := view(x, at, step, count, c), unsafe.Slice(y, count*c)
	for i := range count {
		px := out[i*c:][:c]
		clear(px)
		for _, t := range at {
			for k, v := range in[i*step+t:][:c] {
				px[k] += v
			}
		}
		for k := range px {
			px[k] *= share
		}
	}
}

// greatest is the first greatest pixel of channel k of the window that starts at x.
func greatest(x []float32, at []int, k int) (tap int) {
	best := x[k]
	for _, t := range at {
		if v := x[t+k]; v > best {
			tap, best = t, v
		}
	}
	return tap
}

// pickGo sets y to v where x is greatest.
func pickGo(y, x, v *float32, taps *int, nTaps, step, count, c int) {
	at := unsafe.Slice(taps, nTaps)
	in, out, val := view(x, at, step, count, c), unsafe.Slice(y, count*c), view(v, at, step, count, c)
	for i := range count {
		for k := range c {
			out[i*c+k] = val[i*step+greatest(in[i*step:], at, k)+k]
		}
	}
}

// scatterGo sends dy to the pixel of dx where x is greatest: it is added to what is there if add is 1, otherwise stored, and
// the other pixels of the window become 0.
func scatterGo(dx, x, dy *float32, taps *int, nTaps, step, count, c, add int) {
	at := unsafe.Slice(taps, nTaps)
	in, out, d := view(x, at, step, count, c), view(dx, at, step, count, c), unsafe.Slice(dy, count*c)
	for i := range count {
		if add == 0 {
			for _, t := range at {
				clear(out[i*step+t:][:c])
			}
		}
		for k := range c {
			out[i*step+greatest(in[i*step:], at, k)+k] += d[i*c+k]
		}
	}
}

// spreadGo adds share times dy to each pixel of each window of dx if add is 1, otherwise it stores it there.
func spreadGo(dx, dy *float32, taps *int, nTaps, step, count, c int, share float32, add int) {
	at := unsafe.Slice(taps, nTaps)
	out, d := view(dx, at, step, count, c), unsafe.Slice(dy, count*c)
	for i := range count {
		for _, t := range at {
			px := out[i*step+t:][:c]
			for k, v := range d[i*c:][:c] {
				if add == 0 {
					px[k] = 0
				}
				px[k] += float32(v * share) // rounded, as the vector versions do
			}
		}
	}
}
