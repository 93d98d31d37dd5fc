package quant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Calibration is a way to choose the range of activations from what examples show.
type Calibration string

// The calibrations.
const (
	MinMax     Calibration = "minmax"     // least and greatest
	Percentile Calibration = "percentile" // a share is cut off on both sides
	MSE        Calibration = "mse"        // the least squared error
	Entropy    Calibration = "entropy"    // the least Kullback–Leibler divergence of the distribution in bytes from that of floats (Migacz, GTC 2017)
)

// Calibrations lists them.
var Calibrations = []Calibration{MinMax, Percentile, MSE, Entropy}

// interval is a range of activations; it always has zero in it, which a byte then stands for exactly.
type interval struct{ lo, hi float64 }

// bytes is how the interval becomes bytes: scale and zero.
func (v interval) bytes() (scale float64, zero int) {
	scale = (v.hi - v.lo) / 255
	if scale < 1e-30 { // a constant zero
		return 1, 0
	}
	scale = float64(float32(scale)) // as the kernels have it
	return scale, min(255, max(0, int(math.RoundToEven(-v.lo/scale))))
}

// symmetric is the interval with zero in its middle.
func (v interval) symmetric() interval {
	top := max(-v.lo, v.hi)
	return interval{-top, top * 127 / 128} // zero is byte 128
}

// bins are those of a histogram.
const bins = 2048

// stats are what examples say about a value.
type stats struct {
	all   interval
	count []float64 // by bins of all, once that is known
	zeros float64   // how many are exactly zero
	mean  []float64 // of each element of the last axis
	rows  float64
}

// observe runs examples through the model twice: for the least and greatest of each value, and then for histograms between them.
func observe(ctx context.Context, m *train.Model, n *network, ds data.Dataset) (map[string]*stats, error) {
	out := map[string]*stats{}
	for pass := range 2 {
		loader, err := data.NewLoader(ds, data.LoaderConfig{Batch: 32, Epochs: 1})
		if err != nil {
			return nil, err
		}
		for {
			b, err := loader.Next(ctx)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = n.observeBatch(m, out, pass, b.X)
			}
			if err != nil {
				loader.Close()
				return nil, err
			}
		}
		loader.Close()
	}
	for _, s := range out {
		for i := range s.mean {
			s.mean[i] /= max(1, s.rows)
		}
	}
	return out, nil
}

func (n *network) observeBatch(m *train.Model, out map[string]*stats, pass int, x []*tensor.Tensor) error {
	seen := map[string]bool{}
	var bad error
	err := m.Operands(func(application, operand int, t *tensor.Tensor) {
		name := n.Layers[application].original[operand]
		if seen[name] || !t.DType().IsFloat() || t.Len() == 0 || bad != nil {
			return
		}
		seen[name] = true
		s := out[name]
		if s == nil {
			s = &stats{mean: make([]float64, t.Shape()[len(t.Shape())-1])}
			out[name] = s
		}
		if pass == 0 {
			s.rows += float64(t.Len() / len(s.mean))
			for i, v := range t.F32() {
				if v-v != 0 {
					bad = fmt.Errorf("quant: the input of layer %s is %v for some example: the model has diverged", n.Layers[application].Name, v)
					return
				}
				s.all.lo, s.all.hi = min(s.all.lo, float64(v)), max(s.all.hi, float64(v))
				s.mean[i%len(s.mean)] += float64(v)
			}
			return
		}
		if s.count == nil {
			s.count = make([]float64, bins)
		}
		f := bins / max(s.all.hi-s.all.lo, 1e-300)
		for _, v := range t.F32() {
			if v == 0 {
				s.zeros++
			}
			s.count[min(bins-1, int((float64(v)-s.all.lo)*f))]++
		}
	}, x...)
	return errors.Join(err, bad)
}

// at is the lower end of bin i.
func (s *stats) at(i int) float64 {
	return s.all.lo + (s.all.hi-s.all.lo)*float64(i)/bins
}

// choose is the range that a calibration takes.
func (s *stats) choose(o Options) interval {
	v := s.all
	switch o.Calibration {
	case Percentile:
		v = s.cut(o.Clip)
	case MSE, Entropy:
		v = s.search(o.Calibration == Entropy)
	}
	if o.Symmetric {
		return v.symmetric()
	}
	return v
}

// cut leaves out a share on both sides.
func (s *stats) cut(share float64) interval {
	total := 0.0
	for _, c := range s.count {
		total += c
	}
	v, sum := s.all, 0.0
	for i, c := range s.count {
		if sum += c; sum > share*total {
			v.lo = min(0, s.at(i))
			break
		}
	}
	sum = 0
	for i := bins - 1; i >= 0; i-- {
		if sum += s.count[i]; sum > share*total {
			v.hi = max(0, s.at(i+1))
			break
		}
	}
	return v
}

// search tries ranges that leave out more and more of both ends together, then of each end alone, twice, and takes the one of least error. By divergence, values that come very often make narrow ranges look good,
// so no more than a hundredth is left out at an end.
func (s *stats) search(entropy bool) interval {
	best, least := s.all, math.Inf(1)
	within := s.cut(0.01)
	// try reports whether narrower ranges may be tried.
	try := func(v interval) bool {
		e := 0.0
		switch {
		case !entropy:
			e = s.squared(v)
		case v.lo > within.lo || v.hi < within.hi:
			return false
		default:
			e = s.divergence(v)
		}
		if e < least*(1-1e-9) { // of equals the widest
			best, least = v, e
		}
		return true
	}
	const steps, narrowest = 40, 5
	for step := steps; step >= narrowest; step-- {
		f := float64(step) / steps
		if !try(interval{s.all.lo * f, s.all.hi * f}) {
			break
		}
	}
	for range 2 {
		for _, low := range []bool{false, true} {
			other := best
			for step := steps; step >= narrowest; step-- {
				v, f := other, float64(step)/steps
				if v.hi = s.all.hi * f; low {
					v = interval{s.all.lo * f, other.hi}
				}
				if !try(v) {
					break
				}
			}
		}
	}
	return best
}

// squared is the sum of squared errors of the values of a histogram, each in the middle of its bin, as bytes of a range. Within a bin that is wider than a step of the bytes, errors are those of a step.
func (s *stats) squared(v interval) float64 {
	scale, zero := v.bytes()
	sum := 0.0
	for i, c := range s.count {
		if c == 0 {
			continue
		}
		x := (s.at(i) + s.at(i+1)) / 2
		q := min(255, max(0, math.RoundToEven(x/scale)+float64(zero)))
		d := x - scale*(q-float64(zero))
		if q > 0 && q < 255 { // rounding, whatever the middle says
			d = scale / math.Sqrt(12)
		}
		sum += c * d * d
	}
	return sum
}

// divergence is, zeros aside (which bytes hold exactly), that of the distribution as bytes of a range from the one of the histogram. What lies outside counts at the ends; within a byte all bins that are not empty get the same share.
func (s *stats) divergence(v interval) float64 {
	scale, zero := v.bytes()
	p, count := make([]float64, bins), slices.Clone(s.count)
	count[min(bins-1, max(0, int(-s.all.lo*bins/max(s.all.hi-s.all.lo, 1e-300))))] -= s.zeros
	total, lo, hi := 0.0, bins, -1
	for i, c := range count {
		x := (s.at(i) + s.at(i+1)) / 2
		if x >= v.lo && x <= v.hi {
			lo, hi = min(lo, i), max(hi, i)
		}
		total += c
	}
	if hi < lo || total == 0 {
		return math.Inf(1)
	}
	var mass, inner, filled [256]float64
	code := func(i int) int {
		return int(min(255, max(0, math.RoundToEven((s.at(i)+s.at(i+1))/2/scale)+float64(zero))))
	}
	for i, c := range count {
		p[min(hi, max(lo, i))] += c
	}
	for i := lo; i <= hi; i++ {
		q := code(i)
		mass[q] += p[i]
		inner[q] += count[i] // what the bytes know: outliers are not spread
		if p[i] > 0 {
			filled[q]++
		}
	}
	within := 0.0
	for _, c := range inner {
		within += c
	}
	sum := 0.0
	for i := lo; i <= hi; i++ {
		if p[i] == 0 {
			continue
		}
		q := code(i)
		share := inner[q] / filled[q] / max(within, 1)
		sum += p[i] / total * math.Log(p[i]/total/max(share, 1e-12))
	}
	return sum
}

// join is the range of several values.
func join(vs []interval) interval {
	out := interval{}
	for _, v := range vs {
		out.lo, out.hi = min(out.lo, v.lo), max(out.hi, v.hi)
	}
	return out
}

// spread is how unlike the weights of a layer's outputs are in size.
func spread(tops []float64) float64 {
	s := slices.DeleteFunc(slices.Clone(tops), func(v float64) bool { return v == 0 })
	if len(s) == 0 {
		return 1
	}
	return slices.Max(s) / slices.Min(s)
}
