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

type random struct{ *rand.Rand }

func (r random) floats(n int, s float64) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(s * r.NormFloat64())
	}
	return out
}

// problem is a plan's operands and gradients, all given.
func problem(s Spec, lengths, mask bool) (Operands, Gradients) {
	r := random{rand.New(rand.NewPCG(uint64(s.Cell), uint64(s.Time)))}
	seq, state, g := s.Batch*s.Time*s.Units, s.Batch*s.Units, s.Cell.Gates()
	o := Operands{X: r.floats(g*seq, 1), U: r.floats(s.Units*g*s.Units, 1/math.Sqrt(float64(s.Units))), H0: r.floats(state, 1), C0: r.floats(state, 1), Bias: r.floats(g*s.Units, 1)}
	if lengths {
		o.Lengths = make([]int32, s.Batch)
		for i := range o.Lengths {
			o.Lengths[i] = int32(i % (s.Time + 1))
		}
	}
	if mask {
		o.Mask = r.floats(state, 1)
	}
	nan := func(n int) []float32 {
		x := make([]float32, n)
		for i := range x {
			x[i] = float32(math.NaN())
		}
		return x
	}
	o.States, o.Cells, o.Gate = nan(seq), nan(seq), nan(g*seq)
	d := Gradients{DStates: r.floats(seq, 1), DX: nan(g * seq), DQ: nan(g * seq), DH0: nan(state), DC0: nan(state)}
	if s.Cell == LSTM {
		d.DCells = r.floats(seq, 1)
	}
	return o, d
}

// run64 is the recurrence of one row of the batch in float64, on the row's own first state and projected inputs.
func run64(s Spec, o Operands, b int, h, c []float64, x []float64) (loss func(d Gradients) float64) {
	u, g := s.Units, s.Cell.Gates()
	hs, cs := make([]float64, s.Time*u), make([]float64, s.Time*u)
	sig := func(v float64) float64 { return 1 / (1 + math.Exp(-v)) }
	h, c = append([]float64{}, h...), append([]float64{}, c...)
	for i := range s.Time {
		t := i
		if s.Reverse {
			t = s.Time - 1 - i
		}
		if o.Lengths == nil || t < int(o.Lengths[b]) {
			q := make([]float64, g*u)
			for k := range u {
				v := h[k]
				if o.Mask != nil {
					v *= float64(o.Mask[b*u+k])
				}
				for j := range q {
					q[j] += v * float64(o.U[k*g*u+j])
				}
			}
			xt := x[t*g*u:][:g*u]
			next := make([]float64, u)
			for k := range u {
				switch s.Cell {
				case Tanh:
					next[k] = math.Tanh(xt[k] + q[k])
				case ReLU:
					next[k] = max(0, xt[k]+q[k])
				case LSTM:
					c[k] = sig(xt[u+k]+q[u+k])*c[k] + sig(xt[k]+q[k])*math.Tanh(xt[2*u+k]+q[2*u+k])
					next[k] = sig(xt[3*u+k]+q[3*u+k]) * math.Tanh(c[k])
				case GRU1:
					n := xt[2*u+k]
					for i := range u {
						v := h[i]
						if o.Mask != nil {
							v *= float64(o.Mask[b*u+i])
						}
						n += sig(xt[u+i]+q[u+i]) * v * float64(o.U[i*g*u+2*u+k])
					}
					z := sig(xt[k] + q[k])
					next[k] = z*h[k] + (1-z)*math.Tanh(n)
				case GRU:
					b := func(j int) float64 { return q[j] + float64(o.Bias[j]) }
					z, r := sig(xt[k]+b(k)), sig(xt[u+k]+b(u+k))
					next[k] = z*h[k] + (1-z)*math.Tanh(xt[2*u+k]+r*b(2*u+k))
				}
			}
			h = next
		}
		copy(hs[t*u:], h)
		copy(cs[t*u:], c)
	}
	for i, v := range hs {
		if o.States == nil {
			break
		}
		if got := float64(o.States[b*s.Time*u+i]); !(math.Abs(got-v) <= 2e-5*max(1, math.Abs(v))) {
			panic(fmt.Sprintf("row %d: state %d is %g, want %g", b, i, got, v))
		}
	}
	return func(d Gradients) float64 {
		sum := 0.0
		for i := range hs {
			sum += hs[i] * float64(d.DStates[b*s.Time*u+i])
			if d.DCells != nil {
				sum += cs[i] * float64(d.DCells[b*s.Time*u+i])
			}
		}
		return sum
	}
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// States agree with float64, the gradient with the change of the loss along a random direction, and both have the same bits for any number of threads.
func TestRecurrence(t *testing.T) {
	for _, c := range []struct {
		s             Spec
		lengths, mask bool
	}{
		{Spec{Cell: LSTM, Batch: 40, Time: 5, Units: 33}, false, false},
		{Spec{Cell: LSTM, Batch: 3, Time: 4, Units: 70, Reverse: true}, true, true},
		{Spec{Cell: GRU, Batch: 19, Time: 6, Units: 24}, true, false},
		{Spec{Cell: GRU, Batch: 1, Time: 3, Units: 65, Reverse: true}, false, true},
		{Spec{Cell: Tanh, Batch: 21, Time: 4, Units: 17}, true, true},
		{Spec{Cell: ReLU, Batch: 2, Time: 3, Units: 9, Reverse: true}, false, false},
		{Spec{Cell: LSTM, Batch: 1, Time: 1, Units: 1}, false, false},
		{Spec{Cell: LSTM, Batch: 2, Time: 5, Units: 128}, true, false},
		{Spec{Cell: GRU, Batch: 1, Time: 4, Units: 64, Reverse: true}, false, false},
		{Spec{Cell: Tanh, Batch: 2, Time: 3, Units: 192}, false, true},
		{Spec{Cell: LSTM, Batch: 1, Time: 5, Units: 192}, true, true},
		{Spec{Cell: ReLU, Batch: 1, Time: 4, Units: 128, Reverse: true}, false, false},
		{Spec{Cell: GRU1, Batch: 21, Time: 5, Units: 19}, false, false},
		{Spec{Cell: GRU1, Batch: 4, Time: 4, Units: 64, Reverse: true}, true, true},
		{Spec{Cell: GRU1, Batch: 1, Time: 3, Units: 128}, false, true},
	} {
		for _, l := range isa.Levels() {
			t.Run(fmt.Sprintf("%+v/%v", c.s, l), func(t *testing.T) {
				defer isa.Use(l)()
				s, u := c.s, c.s.Units
				var first []float32
				for threads := 1; threads <= 3; threads++ {
					o, d := problem(s, c.lengths, c.mask)
					pool := par.New(threads)
					p := New(s)
					for range 2 { // the second time in used memory
						p.Run(pool, o)
					}
					back := New(s)
					for range 2 {
						back.Backward(pool, o, d)
					}
					pool.Close()
					all := append(append(append([]float32{}, o.States...), d.DX...), d.DH0...)
					if s.Cell == GRU {
						all = append(all, d.DQ...)
					}
					if first == nil {
						first = all
					}
					for i := range all {
						if math.Float32bits(all[i]) != math.Float32bits(first[i]) {
							t.Fatalf("%d threads: element %d differs", threads, i)
						}
					}
					if threads > 1 {
						continue
					}
					r := random{rand.New(rand.NewPCG(5, 5))}
					for b := range s.Batch {
						h, cell, x := wide(o.H0[b*u:][:u]), wide(o.C0[b*u:][:u]), wide(o.X[b*s.Time*p.wide:][:s.Time*p.wide])
						run64(s, o, b, h, cell, x) // panics where states differ
						// Central differences along a direction, of step 1e-4.
						want, scale := 0.0, 0.0
						up, down := [3][]float64{}, [3][]float64{}
						for k, v := range [][]float64{h, cell, x} {
							g := [][]float32{d.DH0[b*u:], d.DC0[b*u:], d.DX[b*s.Time*p.wide:]}[k]
							for i := range v {
								e := 1e-4 * r.NormFloat64()
								up[k], down[k] = append(up[k], v[i]+e), append(down[k], v[i]-e)
								if k != 1 || s.Cell == LSTM {
									want += 2 * e * float64(g[i])
									scale += math.Abs(2 * e * float64(g[i]))
								}
							}
						}
						quiet := o
						quiet.States = nil
						got := run64(s, quiet, b, up[0], up[1], up[2])(d) - run64(s, quiet, b, down[0], down[1], down[2])(d)
						if !(math.Abs(got-want) <= 1e-4*scale+1e-9) {
							t.Fatalf("row %d: the loss changes by %g, the gradient says %g (scale %g)", b, got, want, scale)
						}
					}
				}
			})
		}
	}
}

// States do not depend on whether the gates are kept, nor on whether weights are packed beforehand.
func TestGatesAside(t *testing.T) {
	for _, l := range isa.Levels() {
		for _, s := range []Spec{
			{Cell: LSTM, Batch: 1, Time: 4, Units: 128}, {Cell: GRU, Batch: 1, Time: 4, Units: 192}, {Cell: LSTM, Batch: 2, Time: 3, Units: 64},
			{Cell: LSTM, Batch: 5, Time: 3, Units: 21}, {Cell: GRU, Batch: 4, Time: 3, Units: 19, Reverse: true},
			{Cell: GRU1, Batch: 4, Time: 3, Units: 19},
		} {
			t.Run(fmt.Sprintf("%+v/%v", s, l), func(t *testing.T) {
				defer isa.Use(l)()
				for _, lengths := range []bool{false, true} {
					o, _ := problem(s, lengths, false)
					p := New(s)
					p.Run(nil, o)
					want := append(append([]float32{}, o.States...), o.Cells...)
					clear(o.States)
					o.Gate, o.Packed = nil, make([]float32, p.PackedLen())
					p.PackU(o.Packed, o.U)
					pool := par.New(2)
					p.Run(pool, o)
					pool.Close()
					got := append(append([]float32{}, o.States...), o.Cells...)
					for i := range want {
						if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
							t.Fatalf("element %d is %g, with gates %g", i, got[i], want[i])
						}
					}
				}
			})
		}
	}
}

// A thread whose fellows never come, or come and lose their CPU before each step, computes their parts: the same bits.
func TestSteppingIn(t *testing.T) {
	for _, s := range []Spec{{Cell: LSTM, Batch: 1, Time: 5, Units: 256}, {Cell: GRU, Batch: 2, Time: 5, Units: 192}} {
		for _, l := range isa.Levels() {
			t.Run(fmt.Sprintf("%+v/%v", s, l), func(t *testing.T) {
				defer isa.Use(l)()
				o, _ := problem(s, false, false)
				p := New(s)
				p.Run(nil, o)
				want := append([]float32{}, o.States...)
				pool := par.New(3)
				defer pool.Close()
				compare := func(how string) {
					for i := range want {
						if math.Float32bits(o.States[i]) != math.Float32bits(want[i]) {
							t.Fatalf("%s: element %d is %g, want %g", how, i, o.States[i], want[i])
						}
					}
					clear(o.States)
				}
				pool.Run(2, par.Func(func(i, _ int) {
					if i == 0 {
						p.Run(pool, o) // the pool is busy: one thread has all parts, one after the other
					}
				}))
				compare("alone")
				// Parts 1 and 2 are said to have a thread, and have none.
				p.ops = o
				p.prepare(pool, false)
				p.begin(3)
				p.parts[1].here.Store(true)
				p.parts[2].here.Store(true)
				(*sharing)(p).Chunk(0, 0)
				if !p.ready(0, p.Units, p.Time-1) {
					t.Fatal("steps were left over")
				}
				(*sharing)(p).Chunk(2, 0)
				(*sharing)(p).Chunk(1, 0)
				compare("deserted")
			})
		}
	}
}

// Nothing is allocated after the first run.
func TestAllocations(t *testing.T) {
	s := Spec{Cell: GRU, Batch: 5, Time: 3, Units: 20}
	o, d := problem(s, false, false)
	f, b := New(s), New(s)
	if n := allocs.PerRun(func() {
		f.Run(nil, o)
		b.Backward(nil, o, d)
	}); n > 0 {
		t.Fatalf("%v allocations a run", n)
	}
}

func BenchmarkRecurrence(b *testing.B) {
	for _, cell := range []Cell{LSTM, GRU} {
		s := Spec{Cell: cell, Batch: 32, Time: 64, Units: 256}
		o, d := problem(s, false, false)
		flops := 2 * float64(s.Batch*s.Time*s.Units*s.Units*cell.Gates())
		for _, threads := range []int{1, 2} {
			pool := par.New(threads)
			f, back := New(s), New(s)
			b.Run(fmt.Sprintf("forward/%d/threads%d", cell, threads), func(b *testing.B) {
				for b.Loop() {
					f.Run(pool, o)
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
			b.Run(fmt.Sprintf("backward/%d/threads%d", cell, threads), func(b *testing.B) {
				for b.Loop() {
					back.Backward(pool, o, d)
				}
				b.ReportMetric(flops*float64(b.N)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
			})
			pool.Close()
		}
	}
}
