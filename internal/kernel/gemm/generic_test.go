package gemm

import (
	"math/rand/v2"
	"testing"
)

func TestGeneric(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 20))
	for range 300 {
		s := Spec{M: rng.IntN(9), N: rng.IntN(9), K: rng.IntN(9), TransA: rng.IntN(2) == 0, TransB: rng.IntN(2) == 0,
			Accumulate: rng.IntN(2) == 0, Batch: 1 + rng.IntN(3)}
		s.LDA, s.LDB, s.LDC = max(s.M, s.K)+rng.IntN(3), max(s.N, s.K)+rng.IntN(3), s.N+rng.IntN(3)
		s.StrideA, s.StrideB, s.StrideC = 110*rng.IntN(2), 110*rng.IntN(2), s.M*s.LDC+rng.IntN(3)
		o := makeOperands(s, rng)
		Generic(o.s, o.a, o.b, o.c)
		if err := o.check(); err != nil {
			t.Fatalf("f32 %+v: %v", s, err)
		}
		// Small integers are exact in every type.
		ints := func(x []float32) (f []float64, i []int32) {
			for range x {
				v := rng.IntN(21) - 10
				f, i = append(f, float64(v)), append(i, int32(v))
			}
			return f, i
		}
		af, ai := ints(o.a)
		bf, bi := ints(o.b)
		cf, ci := ints(o.c)
		Generic(o.s, af, bf, cf)
		Generic(o.s, ai, bi, ci)
		for i := range cf {
			if cf[i] != float64(ci[i]) {
				t.Fatalf("%+v: element %d is %v as f64, %v as i32", s, i, cf[i], ci[i])
			}
		}
	}
}

func TestGenericEpilogue(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Generic(Spec{M: 1, N: 1, K: 1, Bias: true}, make([]float64, 1), make([]float64, 1), make([]float64, 1))
}
