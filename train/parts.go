package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
)

// PartUpdate is the optimizer's part of an account, PartOutside what belongs to no layer.
const (
	PartUpdate  = "optimizer"
	PartOutside = "outside"
)

// PartOf is the part of a sequence model that a line of an account belongs to.
func (m *Model) PartOf(k energy.Key) string {
	switch {
	case k.Phase == "update":
		return PartUpdate
	case k.Layer == "":
		return PartOutside
	}
	return m.Net.Part(k.Layer)
}

// Parts adds a ledger's lines up by the parts of a sequence model (nn.Parts, then PartUpdate and PartOutside), in that order; with phases each phase by itself. Layer is the part, Op is empty.
func (m *Model) Parts(l *energy.Ledger, phases bool) []energy.Line {
	by := l.By(func(k energy.Key) energy.Key {
		out := energy.Key{Layer: m.PartOf(k)}
		if phases {
			out.Phase = k.Phase
		}
		return out
	})
	order := append(nn.Parts(), PartUpdate, PartOutside)
	slices.SortStableFunc(by, func(a, b energy.Line) int {
		if a.Layer != b.Layer {
			return slices.Index(order, a.Layer) - slices.Index(order, b.Layer)
		}
		return strings.Compare(b.Phase, a.Phase) // prefill before decode
	})
	return by
}

// Positions is how many positions a sequence of the data has: tokens, or rows of features. It is 0 for a model that reads no sequences.
func (m *Model) Positions() int {
	if len(m.Spec.Inputs) == 0 || !m.Net.Sequences() {
		return 0
	}
	f := m.Spec.Inputs[0]
	if n := len(f.Shape); n == 1 && f.DType.IsInt() || n == 2 && f.DType.IsFloat() {
		return f.Shape[0]
	}
	return 0
}

// Positions is how many positions of sequences the account's programs have run over, by the phase that lines of its ledger name: prefill and decode of a decoder, "train" for a training step's
// phases together.
func (a *Account) Positions() map[string]int64 {
	out := map[string]int64{}
	for _, p := range a.m.programs {
		times := p.exec.Profile()
		n := a.m.Positions()
		if p.key.time > 0 {
			n = p.key.time
		}
		out[p.key.mode.String()] += runs(times) * int64(p.key.batch*n)
	}
	return out
}

// PartsTable is the account of a sequence model by parts, as text: time, arithmetic, energy and their amounts for a position. positions says how many positions a phase has read, 0 for one that
// reads none; with phases each phase stands by itself, without it is asked for "".
func (m *Model) PartsTable(l *energy.Ledger, positions func(phase string) int64, phases bool) string {
	var b strings.Builder
	name := "phase"
	if !phases {
		name = ""
	}
	fmt.Fprintf(&b, "%-14s %-8s %10s %7s %12s %10s %14s %12s\n", "part", name, "time", "share", "arithmetic", "energy", "FLOP/position", "J/position")
	row := func(part, phase string, e energy.Line) {
		positions := positions(phase)
		share := 0.0
		if l.Seconds > 0 {
			share = 100 * e.Seconds / l.Seconds
		}
		per := func(v float64, unit string) string {
			if positions == 0 {
				return "-"
			}
			return energy.SI(v/float64(positions), unit)
		}
		fmt.Fprintf(&b, "%-14s %-8s %10s %6.1f%% %12s %10s %14s %12s\n", part, phase, energy.SI(e.Seconds, "s"), share, energy.SI(float64(e.Cost.FLOPs), "FLOP"), energy.SI(e.Joules.Value, "J"),
			per(float64(e.Cost.FLOPs), "FLOP"), per(e.Joules.Value, "J"))
	}
	for _, e := range m.Parts(l, phases) {
		row(e.Layer, e.Phase, e)
	}
	row("total", "", energy.Line{Seconds: l.Seconds, Cost: l.Cost, Joules: l.Joules})
	return b.String()
}
