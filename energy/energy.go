// Package energy measures and estimates what computing costs.
//
// # Terminology
//
// A Meter reads a counter of joules that hardware keeps. Where there is none, a Model estimates from time, arithmetic and bytes. A Ledger books
// time, arithmetic, bytes and joules by layer, op and phase; its lines add up to its total. Every figure in joules says where it comes
// from, and an estimate carries an interval and is never printed as a measurement. docs/energy.md has the method and its limits.
package energy

import (
	"encoding/json"
	"fmt"
	"math"
)

// Source says where a figure comes from, such as "measured (RAPL package+dram)" or "estimated (cpu model)".
type Source struct {
	Measured bool   `json:"measured"`
	Name     string `json:"name"`
}

// String is "measured (NAME)" or "estimated (NAME)".
func (s Source) String() string {
	if s.Name == "" {
		return "unknown"
	}
	if s.Measured {
		return "measured (" + s.Name + ")"
	}
	return "estimated (" + s.Name + ")"
}

// Joules is an amount of energy, with the interval in which the true value is believed to lie, and its source.
type Joules struct {
	Value  float64 `json:"joules"`
	Low    float64 `json:"joules_low"`
	High   float64 `json:"joules_high"`
	Source Source  `json:"source"`
}

// Add is the sum. Intervals add end by end, which holds for errors that go together, as a model's do.
func (j Joules) Add(k Joules) Joules {
	if j.Source.Name == "" {
		j.Source = k.Source
	}
	j.Source.Measured = j.Source.Measured && (k.Source.Measured || k.Source.Name == "")
	return Joules{j.Value + k.Value, j.Low + k.Low, j.High + k.High, j.Source}
}

// Scale is the amount times f.
func (j Joules) Scale(f float64) Joules {
	return Joules{j.Value * f, j.Low * f, j.High * f, j.Source}
}

// String is, for example, "12.3 J measured (RAPL package)" or "≈12.3 J (6–25 J) estimated (cpu model)".
func (j Joules) String() string {
	if j.Source.Measured {
		return fmt.Sprintf("%s %v", SI(j.Value, "J"), j.Source)
	}
	return fmt.Sprintf("≈%s (%s to %s) %v", SI(j.Value, "J"), SI(j.Low, "J"), SI(j.High, "J"), j.Source)
}

// SI writes a quantity with three digits and a prefix: "1.23 kJ", "45.6 mJ".
func SI(v float64, unit string) string {
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return fmt.Sprintf("%g %s", v, unit)
	}
	prefixes := [...]string{"p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E"}
	e := int(math.Floor(math.Log10(math.Abs(v)) / 3))
	e = min(max(e, -4), 6)
	x := v / math.Pow(1000, float64(e))
	if math.Abs(x) >= 999.5 && e < 6 { // rounds up to the next prefix
		e, x = e+1, x/1000
	}
	digits := 2
	switch a := math.Abs(x); {
	case a >= 99.95:
		digits = 0
	case a >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s%s", digits, x, prefixes[e+4], unit)
}

// Cost is the work of a piece of computing.
type Cost struct {
	FLOPs    int64 `json:"flops"`    // arithmetic that the model asks for
	Executed int64 `json:"executed"` // arithmetic that ran: less where an algorithm saves some, more where it pads
	// BF16 and Int8 are the parts of Executed that multiplied numbers of those types; the rest is charged as f32.
	BF16    int64 `json:"executed_bf16,omitempty"`
	Int8    int64 `json:"executed_int8,omitempty"`
	Read    int64 `json:"bytes_read"`
	Written int64 `json:"bytes_written"`
}

// Add is the sum.
func (c Cost) Add(d Cost) Cost {
	return Cost{c.FLOPs + d.FLOPs, c.Executed + d.Executed, c.BF16 + d.BF16, c.Int8 + d.Int8, c.Read + d.Read, c.Written + d.Written}
}

// Times is the cost of n repetitions.
func (c Cost) Times(n int64) Cost {
	return c.each(func(x int64) int64 { return x * n })
}

// Part is a share of it.
func (c Cost) Part(share float64) Cost {
	return c.each(func(x int64) int64 { return int64(math.Round(float64(x) * share)) })
}

func (c Cost) each(f func(x int64) int64) Cost {
	return Cost{f(c.FLOPs), f(c.Executed), f(c.BF16), f(c.Int8), f(c.Read), f(c.Written)}
}

// Run makes the arithmetic that ran n operations, in the proportions of types that c has.
func (c Cost) Run(n int64) Cost {
	if c.Executed > 0 {
		part := func(x int64) int64 { return int64(float64(n) * (float64(x) / float64(c.Executed))) }
		c.BF16, c.Int8 = part(c.BF16), part(c.Int8)
	}
	c.Executed = n
	return c
}

// Bytes is what is read and written.
func (c Cost) Bytes() int64 { return c.Read + c.Written }

// Intensity is arithmetic per byte: what ran over the bytes moved, 0 of nothing.
func (c Cost) Intensity() float64 {
	if c.Bytes() == 0 {
		return 0
	}
	return float64(c.Executed) / float64(c.Bytes())
}

// Machine is what a machine can do at best.
type Machine struct {
	FLOPS     float64 `json:"flops_per_second"`
	Bandwidth float64 `json:"bytes_per_second"`
}

// Bound is the least time in seconds that work can take on the machine (Williams, Waterman & Patterson, Roofline, 2009), and whether arithmetic or memory
// sets it. The speed of arithmetic is that of f32, so a product of f32 that runs as several of bf16 counts as what it was asked for.
func (m Machine) Bound(c Cost) (seconds float64, by string) {
	flops := c.Executed
	if c.BF16 > 0 && c.FLOPs > 0 {
		flops = min(flops, c.FLOPs)
	}
	f, b := float64(flops)/m.FLOPS, float64(c.Bytes())/m.Bandwidth
	if f >= b {
		return f, "compute"
	}
	return b, "memory"
}

// Carbon is grams of CO2 equivalent for an amount of energy, by a grid's factor in grams per kilowatt hour.
func Carbon(joules, gramsPerKWh float64) float64 { return joules / 3.6e6 * gramsPerKWh }

// MarshalJSON writes values that are no numbers as null.
func (j Joules) MarshalJSON() ([]byte, error) {
	f := func(v float64) any {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return v
	}
	return json.Marshal(map[string]any{"joules": f(j.Value), "joules_low": f(j.Low), "joules_high": f(j.High), "source": j.Source})
}
