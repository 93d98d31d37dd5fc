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
// FLOP: a server part of 96 cores at a default TDP of 360 W (AMD EPYC 9654; looked up in the EPYC 9004 table of hpctech.co.jp) has 3.75 W a core. With vectors of 32
// f32 operations a cycle at 3.1 GHz (within the 2.4 to 3.7 GHz of that table; an assumption) that is 38 pJ, of which a quarter is booked as Idle. The low end is what a multiply and an
// add alone take, 3.7 + 0.9 pJ in 45 nm (Horowitz, Computing's energy problem, ISSCC 2014; looked up as quoted in PMC8934428, table 3): no less than 2.3 pJ an operation before any
// gain by a smaller process, taken as 6 with registers and instructions, which is a judgement. The high end is a desktop core at its boost clock, about 20 W for 170 GFLOP/s, from
// memory.
// Cache: the same table quotes Horowitz for 8 bytes of an 8 kB cache as 10 pJ (1.25 pJ a byte), which the low end is near. The 100 pJ of a 1 MB cache and the 1.3 to 2.6 nJ
// of DRAM for 8 bytes (12 and 160 to 325 pJ a byte) are the same talk's, but from memory: no copy of them was found to check. That DDR5 takes about half is a judgement.
// These are not measurements of this machine: hence the wide intervals.
var CPU = Model{
	Name:      "cpu model",
	Idle:      Range{1, 0.3, 3},
	FLOP:      Range{28e-12, 6e-12, 110e-12},
	Cache:     Range{8e-12, 2e-12, 20e-12},
	DRAM:      Range{120e-12, 60e-12, 325e-12},
	CacheSize: 16 << 20,
}

// Host is the model for a processor that waits while a device computes, of which no counter tells: what it gives is the host's energy alone.
var Host = Model{Name: "cpu model of the host; the device is not counted", Idle: CPU.Idle, CacheSize: CPU.CacheSize}

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
