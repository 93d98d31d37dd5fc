package quant

import (
	"math"
	"testing"
)

// histogram is what n values would leave that are spread over [-1, 1] as density says, and so many more at far.
func histogram(density func(x float64) float64, far float64, more float64) *stats {
	s := &stats{all: interval{-1, far}, count: make([]float64, bins)}
	for i := range bins {
		if x := (s.at(i) + s.at(i+1)) / 2; x <= 1 {
			s.count[i] = math.Round(1e8 / bins * density(x))
		}
	}
	s.count[bins-1] += more
	return s
}

// Calibrations that look at the distribution leave out a few values far away, each in its own measure, and nothing of a distribution that fills its range.
func TestCalibrations(t *testing.T) {
	bell := histogram(func(x float64) float64 { return math.Exp(-8 * x * x) }, 10, 3)
	for c, most := range map[Calibration]float64{MinMax: 10, Percentile: 1.1, MSE: 5, Entropy: 5} {
		v := bell.choose(Options{Calibration: c, Clip: 0.0001})
		if v.hi > most || v.hi < 0.5 || c == MinMax && v.hi != 10 {
			t.Errorf("%s: values up to 1 and three at 10 get the range %v", c, v)
		}
		if s := bell.choose(Options{Calibration: c, Clip: 0.0001, Symmetric: true}); math.Abs(s.hi/127+s.lo/128) > 1e-9 || -s.lo < v.hi-1e-12 || -s.lo < -v.lo-1e-12 {
			t.Errorf("%s, symmetric: %v, not symmetric %v", c, s, v)
		}
	}
	flat := histogram(func(float64) float64 { return 1 }, 1, 0)
	for _, c := range []Calibration{MinMax, MSE, Entropy} {
		if v := flat.choose(Options{Calibration: c}); v.lo > -0.95 || v.hi < 0.95 {
			t.Errorf("%s: evenly spread from -1 to 1 gets %v", c, v)
		}
	}
}

// The divergence of a distribution from itself in bytes is none where each byte stands for whole bins of one height, and grows with what lies outside.
func TestDivergence(t *testing.T) {
	flat := histogram(func(float64) float64 { return 1 }, 1, 0)
	last := -1.0
	for _, f := range []float64{1, 0.9, 0.7, 0.4} {
		d := flat.divergence(interval{-f, f})
		if f == 1 && math.Abs(d) > 1e-3 {
			t.Errorf("of all: %v", d)
		}
		if d < last {
			t.Errorf("within ±%v: %v, less than %v of a wider range", f, d, last)
		}
		last = d
	}
	if d := flat.divergence(interval{2, 3}); !math.IsInf(d, 1) {
		t.Errorf("where there is nothing: %v", d)
	}
}
