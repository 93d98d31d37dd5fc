package update

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

var specs = map[string]Spec{
	"sgd":              {Kind: SGD},
	"momentum":         {Kind: SGD, Momentum: 0.9},
	"nesterov":         {Kind: SGD, Momentum: 0.9, Nesterov: true},
	"adam":             {Kind: Adam, Beta1: 0.9, Beta2: 0.999, Epsilon: 1e-7},
	"rmsprop":          {Kind: RMSprop, Rho: 0.9, Epsilon: 1e-7},
	"rmsprop momentum": {Kind: RMSprop, Rho: 0.9, Epsilon: 1e-7, Momentum: 0.5},
	"rmsprop centered": {Kind: RMSprop, Rho: 0.9, Epsilon: 1e-3, Centered: true},
	"rmsprop all":      {Kind: RMSprop, Rho: 0.9, Epsilon: 1e-3, Centered: true, Momentum: 0.5},
	"lion":             {Kind: Lion, Beta1: 0.9, Beta2: 0.99},
}

// reference does one step on one element in float64, straight from the formulas of the package's documentation.
func reference(s Spec, w, g float64, slot *[3]float64, lr float64, t int64, decay float64) float64 {
	w -= w * decay * lr
	switch s.Kind {
	case SGD:
		slot[0] = s.Momentum*slot[0] - lr*g
		if s.Nesterov {
			return w + s.Momentum*slot[0] - lr*g
		}
		return w + slot[0]
	case Adam:
		alpha := lr * math.Sqrt(1-math.Pow(s.Beta2, float64(t))) / (1 - math.Pow(s.Beta1, float64(t)))
		slot[0] += (g - slot[0]) * (1 - s.Beta1)
		slot[1] += (g*g - slot[1]) * (1 - s.Beta2)
		return w - slot[0]*alpha/(math.Sqrt(slot[1])+s.Epsilon)
	case RMSprop:
		slot[0] = s.Rho*slot[0] + (1-s.Rho)*g*g
		den := slot[0] + s.Epsilon
		if s.Centered {
			slot[2] = s.Rho*slot[2] + (1-s.Rho)*g
			den -= slot[2] * slot[2]
		}
		slot[1] = s.Momentum*slot[1] + lr*g/math.Sqrt(den)
		return w - slot[1]
	default:
		u := slot[0]*s.Beta1 + g*(1-s.Beta1)
		slot[0] = slot[0]*s.Beta2 + g*(1-s.Beta2)
		switch {
		case u > 0:
			return w - lr
		case u < 0:
			return w + lr
		}
		return w
	}
}

func TestSteps(t *testing.T) {
	lens := []int{0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 100, chunkLen - 1, chunkLen + 5, 3 * chunkLen}
	const steps, lr, scale = 5, 0.01, 0.5
	for name, s := range specs {
		var first [][]float32 // w and slots of every parameter after the last step, on the portable code without a pool
		for _, l := range isa.Levels() {
			for threads := range 4 {
				restore := isa.Use(l)
				var pool *par.Pool
				if threads > 0 {
					pool = par.New(threads)
				}
				what := fmt.Sprint(name, " ", l, " threads=", threads)
				r := rand.New(rand.NewPCG(1, 2))
				params := make([]Param, len(lens))
				want := make([][]float64, len(lens))
				slots := make([][][3]float64, len(lens))
				var all [][]float32
				for i, n := range lens {
					array := func() []float32 { // between sentinels, at an odd place
						a := make([]float32, n+i%5+20)
						for j := range a {
							a[j] = -77
						}
						all = append(all, a)
						return a[i%5 : i%5+n : i%5+n]
					}
					decay := 0.1 * float64(i%3)
					p := Param{W: array(), Grad: make([]float32, n), Shrink: float32(lr * decay), Scale: scale}
					for k := range s.Slots() {
						p.Slots[k] = array()
						clear(p.Slots[k])
					}
					want[i], slots[i] = make([]float64, n), make([][3]float64, n)
					for j := range p.W {
						p.W[j] = float32(r.NormFloat64())
						want[i][j] = float64(p.W[j])
					}
					params[i] = p
				}
				plan := New(s, lens)
				restore()
				for step := range int64(steps) {
					for i := range params {
						for j := range params[i].Grad {
							g := float32(r.NormFloat64())
							params[i].Grad[j] = g
							want[i][j] = reference(s, want[i][j], float64(g)*scale, &slots[i][j], lr, step+1, 0.1*float64(i%3))
						}
					}
					for i := range params {
						params[i].Rate = s.Rate(lr, step+1)
					}
					plan.Run(pool, params)
				}
				pool.Close()
				for i, p := range params {
					for j := range p.W {
						// The steps are some 10 roundings each of numbers up to a few; a centered denominator may be as small as ε.
						if d := math.Abs(float64(p.W[j]) - want[i][j]); !(d < 5e-6) {
							t.Fatalf("%s: parameter %d [%d] = %g, want %g", what, i, j, p.W[j], want[i][j])
						}
					}
				}
				if first == nil {
					first = all
				}
				for i := range all {
					for j := range all[i] {
						if math.Float32bits(all[i][j]) != math.Float32bits(first[i][j]) {
							t.Fatalf("%s: array %d differs at %d: %g, portable %g", what, i, j, all[i][j], first[i][j])
						}
					}
					n := lens[i/(1+s.Slots())]
					off := i / (1 + s.Slots()) % 5
					for j, x := range all[i] {
						if (j < off || j >= off+n) && x != -77 {
							t.Fatalf("%s: wrote outside array %d, at %d", what, i, j-off)
						}
					}
				}
			}
		}
	}
}

func TestMismatch(t *testing.T) {
	p := New(specs["adam"], []int{4})
	ok := make([]float32, 4)
	for name, params := range map[string][]Param{
		"none":     nil,
		"short w":  {{W: ok[:3], Grad: ok, Slots: [3][]float32{ok, ok}}},
		"long g":   {{W: ok, Grad: make([]float32, 5), Slots: [3][]float32{ok, ok}}},
		"no slots": {{W: ok, Grad: ok}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			p.Run(nil, params)
		}()
	}
}

func TestAllocs(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	const n = 1 << 16
	params := []Param{{W: make([]float32, n), Grad: make([]float32, n), Slots: [3][]float32{make([]float32, n), make([]float32, n)}}}
	p := New(specs["adam"], []int{n})
	if a := allocs.PerRun(func() { p.Run(pool, params) }); a != 0 {
		t.Errorf("%v allocations a run", a)
	}
}

func BenchmarkUpdate(b *testing.B) {
	pool := par.New(2)
	defer pool.Close()
	const n = 225034 // the main network
	for name, s := range specs {
		for _, l := range isa.Levels() {
			b.Run(fmt.Sprint(name, "/", l), func(b *testing.B) {
				defer isa.Use(l)()
				q := Param{W: make([]float32, n), Grad: make([]float32, n)}
				for i := range s.Slots() {
					q.Slots[i] = make([]float32, n)
				}
				p := New(s, []int{n})
				b.SetBytes(int64(4 * n * (3 + 2*s.Slots())))
				for b.Loop() {
					p.Run(pool, []Param{q})
				}
			})
		}
	}
}
