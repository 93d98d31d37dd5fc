package optim

import (
	"fmt"
	"math"
	"slices"
)

// Schedule gives the learning rate of each step, counted from 0.
type Schedule interface {
	At(step int64) float64
}

type constant float64

func (c constant) At(int64) float64 { return float64(c) }

// Constant is the same rate at each step.
func Constant(rate float64) Schedule { return constant(rate) }

type steps struct {
	rate, factor float64
	at           []int64
}

func (s steps) At(step int64) float64 {
	n, _ := slices.BinarySearch(s.at, step+1)
	return s.rate * math.Pow(s.factor, float64(n))
}

// Step multiplies the rate by factor at each of the given steps, which must ascend.
func Step(rate, factor float64, at ...int64) (Schedule, error) {
	if !slices.IsSorted(at) {
		return nil, fmt.Errorf("optim: the steps %v of a schedule must ascend", at)
	}
	return steps{rate, factor, slices.Clone(at)}, nil
}

type cosine struct {
	rate, end float64
	steps     int64
}

func (c cosine) At(step int64) float64 {
	x := min(1, float64(step)/float64(max(1, c.steps)))
	return c.end + (c.rate-c.end)*0.5*(1+math.Cos(math.Pi*x))
}

// Cosine falls from rate to end over steps along half a cosine (Loshchilov & Hutter, arXiv:1608.03983, without restarts).
func Cosine(rate, end float64, steps int64) Schedule { return cosine{rate, end, steps} }

type warmup struct {
	steps int64
	next  Schedule
}

func (w warmup) At(step int64) float64 {
	if step < w.steps {
		return w.next.At(0) * float64(step+1) / float64(w.steps)
	}
	return w.next.At(step - w.steps)
}

// Warmup rises in a line from near 0 to the first rate of next over steps, then follows next from its start.
func Warmup(steps int64, next Schedule) Schedule { return warmup{steps, next} }

type oneCycle struct {
	peak  float64
	steps int64
}

func (o oneCycle) At(step int64) float64 {
	up := o.steps * 3 / 10
	if step < up {
		return cosine{o.peak / 25, o.peak, up}.At(step)
	}
	return cosine{o.peak, o.peak / 25e4, o.steps - up}.At(step - up)
}

// OneCycle rises from peak/25 to peak over the first 30% of steps and falls to peak/250,000 (Smith & Topin, arXiv:1708.07120, with cosine
// ramps).
func OneCycle(peak float64, steps int64) Schedule { return oneCycle{peak, steps} }
