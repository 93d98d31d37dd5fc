package recur

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// fewProblem is a problem with random weights of few bits.
func fewProblem(s Spec, lengths, mask bool) Operands {
	o, _ := problem(s, lengths, mask)
	r := rand.New(rand.NewPCG(7, 8))
	few, third := New(s).Few()
	row := s.Units
	if s.Bits == 4 {
		row = (row + 1) / 2
	}
	n := s.Cell.Gates() * s.Units
	stored, scale := make([]uint8, n*row), make([]float32, n*few.Groups())
	for i := range stored {
		stored[i] = uint8(r.IntN(256))
	}
	for i := range scale {
		scale[i] = float32(r.Float64() / math.Exp2(float64(s.Bits)) / math.Sqrt(float64(s.Units)))
	}
	o.W, o.Scale, o.U = make([]uint8, few.WeightBytes()), make([]float32, few.ScaleLen()), nil
	few.PackWeights(o.W, stored)
	few.PackScales(o.Scale, scale)
	if third != nil {
		o.W3, o.Scale3 = make([]uint8, third.WeightBytes()), make([]float32, third.ScaleLen())
		third.PackWeights(o.W3, stored[few.N*row:])
		third.PackScales(o.Scale3, scale[few.N*few.Groups():])
	}
	return o
}

// Weights of few bits give a row the same bits with any number of threads and in any company of rows, with and without the gates kept; on every instruction set the same but for the gates' functions.
func TestFew(t *testing.T) {
	for _, c := range []struct {
		s             Spec
		lengths, mask bool
	}{
		{Spec{Cell: LSTM, Batch: 1, Time: 5, Units: 512, Bits: 8}, false, false}, // parts of more than one thread
		{Spec{Cell: LSTM, Batch: 2, Time: 6, Units: 192, Bits: 8, Group: 64}, true, true},
		{Spec{Cell: LSTM, Batch: 1, Time: 3, Units: 128, Bits: 4, Group: 32, Reverse: true}, false, false},
		{Spec{Cell: GRU, Batch: 1, Time: 6, Units: 64, Bits: 4}, false, true},
		{Spec{Cell: GRU, Batch: 2, Time: 3, Units: 128, Bits: 8, Reverse: true}, true, false},
		{Spec{Cell: GRU, Batch: 1, Time: 3, Units: 70, Bits: 8}, false, false},
		{Spec{Cell: Tanh, Batch: 1, Time: 4, Units: 384, Bits: 8}, true, false},
		{Spec{Cell: Tanh, Batch: 2, Time: 3, Units: 192, Bits: 4, Group: 64}, false, true},
		{Spec{Cell: ReLU, Batch: 1, Time: 3, Units: 128, Bits: 8}, false, false},
		{Spec{Cell: GRU1, Batch: 1, Time: 3, Units: 72, Bits: 8}, false, false},
		{Spec{Cell: GRU1, Batch: 2, Time: 4, Units: 64, Bits: 4, Group: 32}, true, true},
	} {
		var first []float32 // in plain Go
		for _, l := range isa.ByteLevels() {
			t.Run(fmt.Sprintf("%+v/%v", c.s, l), func(t *testing.T) {
				defer isa.Use(l)()
				// The rows repeated in a batch of 20 go through all steps in chunks of rows.
				many := c.s
				many.Batch = 20
				o := fewProblem(c.s, c.lengths, c.mask)
				wide := fewProblem(many, c.lengths, c.mask)
				repeat := func(dst, src []float32) {
					for i := range dst {
						dst[i] = src[i%len(src)]
					}
				}
				repeat(wide.X, o.X)
				repeat(wide.H0, o.H0)
				repeat(wide.C0, o.C0)
				wide.Bias = o.Bias
				if c.mask {
					repeat(wide.Mask, o.Mask)
				}
				if c.lengths {
					for i := range wide.Lengths {
						wide.Lengths[i] = o.Lengths[i%c.s.Batch]
					}
				}
				plan := New(many)
				wide.W, wide.Scale, wide.W3, wide.Scale3 = o.W, o.Scale, o.W3, o.Scale3
				plan.Run(nil, wide)
				for threads := 1; threads <= 3; threads++ {
					pool := par.New(threads)
					p := New(c.s)
					for _, gates := range []bool{true, false} {
						one := o
						if !gates {
							one.Gate = nil
						}
						for range 2 {
							p.Run(pool, one)
						}
						for i, v := range o.States {
							if math.Float32bits(v) != math.Float32bits(wide.States[i]) {
								t.Fatalf("%d threads: state %d is %g, among 20 rows %g", threads, i, v, wide.States[i])
							}
						}
						for i := range o.States {
							o.States[i] = float32(math.NaN())
						}
					}
					if allocs.PerRun(func() { p.Run(pool, o) }) != 0 {
						t.Error("allocates at each run")
					}
					pool.Close()
				}
				if l == isa.Portable {
					first = append([]float32{}, wide.States...)
				}
				for i, v := range wide.States {
					if math.Abs(float64(v-first[i])) > 1e-5 {
						t.Fatalf("state %d is %g, in plain Go %g", i, v, first[i])
					}
				}
			})
		}
	}
}

// BenchmarkFew is one sequence, in f32 and with weights of few bits.
func BenchmarkFew(b *testing.B) {
	for _, cell := range []Cell{LSTM, GRU} {
		for _, bits := range []int{0, 8, 4} {
			for _, l := range isa.ByteLevels()[1:] {
				for _, threads := range []int{1, 2} {
					b.Run(fmt.Sprintf("%d/%d/%v/threads%d", cell, bits, l, threads), func(b *testing.B) {
						defer isa.Use(l)()
						s := Spec{Cell: cell, Batch: 1, Time: 64, Units: 256, Bits: bits}
						o, _ := problem(s, false, false)
						if bits != 0 {
							o = fewProblem(s, false, false)
						}
						o.Gate = nil
						p := New(s)
						if bits == 0 {
							o.Packed = make([]float32, p.PackedLen())
							p.PackU(o.Packed, o.U)
						}
						pool := par.New(threads)
						defer pool.Close()
						for b.Loop() {
							p.Run(pool, o)
						}
					})
				}
			}
		}
	}
}
