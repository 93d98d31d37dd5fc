package energy

import (
	"time"

	"github.com/jouleml/joule/internal/isa"
)

// Model estimates energy where no counter can be read: J = idle·t + Σ e·FLOPs + Σ e(level)·bytes.
//
// An operating system's own figures (load, clock) do not know whether a core multiplies or waits; the work that a graph asks for does.
type Model struct {
	Name string
	// Idle is the power in watts of one core in use beside its work: leakage, clocks, its share of caches and fabric.
	Idle Range
	// FLOP is the energy in joules of one f32 operation in a fused multiply-add of full vectors, fetching and decoding included.
	FLOP Range
	// BF16 and Int8 are the energy of an operation on numbers of those types, as parts of FLOP's.
	BF16, Int8 Range
	// Cache and DRAM are the energy in joules of a byte moved between core and the last cache, and memory.
	Cache, DRAM Range
	// CacheSize is the number of bytes that fit in the cache that one run may count on.
	CacheSize int64
}

// Range is a value and the interval in which it is believed to lie.
type Range struct{ Value, Low, High float64 }

func (r Range) scaled(f float64) Range { return Range{r.Value * f, r.Low * f, r.High * f} }

func (r Range) times(s Range) Range { return Range{r.Value * s.Value, r.Low * s.Low, r.High * s.High} }

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
// BF16 and Int8: a core draws about the same power whatever its vector instructions multiply, so an operation's energy goes with the operations of an instruction: VDPBF16PS does twice
// those of a multiply-add of f32, VPDPBUSD four times. Without them bytes take three instructions for four times the operations (VPMADDUBSW, VPMADDWD, VPADDD, on bytes halved so
// that nothing saturates), and bf16 is multiplied as f32. The low ends are the arithmetic's alone: a multiply and an add of 4.6 pJ in f32, of 1.5 in 16-bit floats and of 0.23 in
// bytes in 45 nm (the table quoted above). The high ends, that half of the gain is lost to what an instruction costs anyway, are a judgement. TDPBF16PS does
// 1024 operations in a cycle, where two multiply-adds of f32 do 64: the low end; the value is what a core at its limit of power has done (2.1 TFLOP/s beside 217 GFLOP/s, package tgemm). TDPBSSD does
// 2048: the low end; a core has done 4.8 TOP/s (package wgemm), of which the value is about.
// These are not measurements of this machine: hence the wide intervals.
var CPU = processor(isa.BF16(), isa.VNNI(), isa.AMX(), isa.AMXInt8())

func processor(bf16, vnni, amx, amxInt8 bool) Model {
	m := Model{
		Name:      "cpu model",
		Idle:      Range{1, 0.3, 3},
		FLOP:      Range{28e-12, 6e-12, 110e-12},
		BF16:      Range{1, 1, 1},
		Int8:      Range{0.75, 0.5, 1},
		Cache:     Range{8e-12, 2e-12, 20e-12},
		DRAM:      Range{120e-12, 60e-12, 325e-12},
		CacheSize: 16 << 20,
	}
	if bf16 {
		m.BF16 = Range{0.5, 0.33, 0.75}
	}
	if amx {
		m.BF16 = Range{0.1, 0.06, 0.33}
	}
	if vnni {
		m.Int8 = Range{0.25, 0.05, 0.625}
	}
	if amxInt8 {
		m.Int8 = Range{0.05, 0.03, 0.25}
	}
	return m
}

// Host is the model for a processor that waits while a device computes, of which no counter tells: what it gives is the host's energy alone.
var Host = Model{Name: "cpu model of the host; the device is not counted", Idle: CPU.Idle, CacheSize: CPU.CacheSize}

// Estimate is the energy of work that took d on the given number of cores. Bytes of pieces that fit the cache are charged as cache traffic; fits says so.
func (m Model) Estimate(c Cost, d time.Duration, cores int, fits bool) Joules {
	r := m.Idle.scaled(d.Seconds() * float64(max(1, cores)))
	r = r.plus(m.FLOP.scaled(float64(c.Executed - c.BF16 - c.Int8)))
	r = r.plus(m.FLOP.times(m.BF16).scaled(float64(c.BF16)))
	r = r.plus(m.FLOP.times(m.Int8).scaled(float64(c.Int8)))
	level := m.DRAM
	if fits {
		level = m.Cache
	}
	r = r.plus(level.scaled(float64(c.Bytes())))
	return Joules{r.Value, r.Low, r.High, Source{false, m.Name}}
}
