package train

import (
	"math"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Seeds that float64 holds are used as they are; greater ones are mapped to such, and neighbours stay apart.
func TestDrawSeed(t *testing.T) {
	for _, s := range []uint64{0, 1, 42, 1<<53 - 1, 1 << 53} {
		if drawSeed(s) != int64(s) {
			t.Errorf("seed %d is drawn from as %d", s, drawSeed(s))
		}
	}
	seen := map[int64]uint64{}
	for _, base := range []uint64{1<<53 + 1, 1 << 60, 1<<63 - 50, math.MaxUint64 - 99} {
		for i := range uint64(100) {
			d := drawSeed(base + i)
			if d < 0 || d > 1<<53 || int64(float64(d)) != d {
				t.Errorf("seed %d is drawn from as %d, which float64 does not hold", base+i, d)
			}
			if old, ok := seen[d]; ok && old != base+i {
				t.Errorf("seeds %d and %d draw the same", old, base+i)
			}
			seen[d] = base + i
		}
	}
}

// The loss of a network with dropout before its first step: a great seed gives the same loss on every backend, and the next seed another.
func TestGreatSeedOnEveryBackend(t *testing.T) {
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "x", Shape: shape.Of(400), DType: dtype.F32}},
		Targets: []data.Field{{Name: "y", Shape: shape.Of(4), DType: dtype.F32}},
	}
	x, y := tensor.New(dtype.F32, 3, 400), tensor.New(dtype.F32, 3, 4)
	for i := range x.F32() {
		x.F32()[i] = float32(i%7) + 1
	}
	step := func(b backend.Backend, seed uint64) float64 {
		m, err := Compile(nn.Sequential(nn.Dropout(0.5), nn.Dense(4)), spec, optim.SGD(0, false), MeanSquaredError, On(b), Seed(seed))
		if err != nil {
			t.Fatal(err)
		}
		l, err := m.Step([]*tensor.Tensor{x}, []*tensor.Tensor{y}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	for _, seed := range []uint64{1<<53 + 1, 1<<60 + 1, math.MaxUint64} {
		a, b := step(ref.Backend{}, seed), step(cpu.Backend{}, seed)
		if math.Abs(a-b) > 1e-5*a {
			t.Errorf("seed %d: loss %.9g on the reference, %.9g on the CPU", seed, a, b)
		}
		if next := step(cpu.Backend{}, seed-1); math.Abs(a-next) <= 1e-5*a {
			t.Errorf("seeds %d and %d give the same loss %.9g", seed, seed-1, a)
		}
	}
}
