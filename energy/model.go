package energy

import "time"

// Model estimates energy where no counter can be read: J = idle·t + Σ e·FLOPs + Σ e(level)·bytes.
//
// An operating system's own figures (load, clock) do not know whether a core multiplies or waits; the work that a graph asks for does.
type Model struct {
	Name string
	// Idle is the power in watts of one core in use beside its work: leakage, clocks, its share of caches and fabric.
	Idle Range
	// FLOP is the energy in joules of one f32 operation in a fused multiply-add of full vectors, fetching and decoding included.
	FLOP Range
	// Cache and DRAM are the energy in joules of a byte moved between core and the last cache, and memory.
	Cache, DRAM Range
	// CacheSize is the number of bytes that fit in the cache that one run may count on.
	CacheSize int64
}

// Range is a value and the interval in which it is believed to lie.
type Range struct{ Value, Low, High float64 }

func (r Range) scaled(f float64) Range { return Range{r.Value * f, r.Low * f, r.High * f} }

func (r Range) plus(s Range) Range { return Range{r.Value + s.Value, r.Low + s.Low, r.High + s.High} }

// CPU is the model for a present-day server or desktop processor.
//
// FLOP: a server part of 96 cores at 360 W (AMD EPYC 9654, product specification, 2022) has 3.75 W a core; with vectors of 32 f32 operations a cycle at
// 3.1 GHz that is 38 pJ, of which a quarter is booked as Idle. The low end is what a multiply and an add alone take, 4.6 pJ in 45 nm (Horowitz,
// Computing's energy problem, ISSCC 2014), scaled to 5 nm and doubled for registers; the high end is a desktop core at its boost clock (about 20 W for 170 GFLOP/s).
// Cache and DRAM: Horowitz gives 100 pJ for 8 bytes of a 1 MB cache and 1.3 to 2.6 nJ for 8 bytes of DRAM (12 and 160 to 325 pJ a byte); DDR5 is about half.
// These are not measurements of this machine: hence the wide intervals.
var CPU = Model{
	Name:      "cpu model",
	Idle:      Range{1, 0.3, 3},
	FLOP:      Range{28e-12, 6e-12, 110e-12},
	Cache:     Range{8e-12, 2e-12, 20e-12},
	DRAM:      Range{120e-12, 60e-12, 325e-12},
	CacheSize: 16 << 20,
}

// Estimate is the energy of work that took d on the given number of cores. Bytes of pieces that fit the cache are charged as cache traffic; fits says so.
func (m Model) Estimate(c Cost, d time.Duration, cores int, fits bool) Joules {
	r := m.Idle.scaled(d.Seconds() * float64(max(1, cores)))
	r = r.plus(m.FLOP.scaled(float64(c.Executed)))
	level := m.DRAM
	if fits {
		level = m.Cache
	}
	r = r.plus(level.scaled(float64(c.Bytes())))
	return Joules{r.Value, r.Low, r.High, Source{false, m.Name}}
}
