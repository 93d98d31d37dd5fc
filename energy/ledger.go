package energy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Key says what a line of a ledger is about.
type Key struct {
	Layer string `json:"layer"` // the layer's path; "" for what belongs to none
	Op    string `json:"op"`
	Phase string `json:"phase"` // forward, backward, update, data, idle
}

// PhaseEvaluate is the phase of validation and tests, which a training could do without.
const PhaseEvaluate = "evaluate"

// Line is what a key has cost.
type Line struct {
	Key
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"`
	Cost    Cost    `json:"cost"`
	Joules  Joules  `json:"energy"`
}

// Ledger is an account of a run. Its lines add up to its total.
type Ledger struct {
	Lines    []Line  `json:"lines"`
	Seconds  float64 `json:"seconds"`
	Cost     Cost    `json:"cost"`
	Joules   Joules  `json:"energy"`
	Examples int64   `json:"examples,omitempty"`
	Cores    int     `json:"cores"`
	// Grid is the grams of CO2 equivalent of a kilowatt hour that the user has set; 0: not set.
	Grid float64 `json:"grid_g_per_kwh,omitempty"`
	// SharesPredicted says that lines share times that were measured for whole programs, as a model predicts.
	SharesPredicted bool `json:"shares_predicted,omitempty"`

	model Model
	index map[Key]int
}

// NewLedger begins an account of a run on the given number of cores, estimated by model where nothing is measured.
func NewLedger(m Model, cores int) *Ledger {
	return &Ledger{Cores: cores, model: m, index: map[Key]int{}}
}

// Book adds work to a line: calls of it that took d in all. fits says that a call's bytes stay in cache.
func (l *Ledger) Book(k Key, calls int64, d time.Duration, c Cost, fits bool) {
	i, ok := l.index[k]
	if !ok {
		i = len(l.Lines)
		l.index[k] = i
		l.Lines = append(l.Lines, Line{Key: k})
	}
	e := &l.Lines[i]
	e.Calls += calls
	e.Seconds += d.Seconds()
	e.Cost = e.Cost.Add(c)
	e.Joules = e.Joules.Add(l.model.Estimate(c, d, l.Cores, fits))
}

// Close ends the account. wall is the time of the whole run: what the lines leave of it becomes a line of phase idle. With measured joules, the total is that and each line
// has the share that the model gives it; without, lines and total are the estimate.
func (l *Ledger) Close(wall time.Duration, measured *Joules) {
	booked := 0.0
	for _, e := range l.Lines {
		booked += e.Seconds
	}
	if rest := wall.Seconds() - booked; rest > 0 {
		l.Book(Key{Op: "outside the graph", Phase: "idle"}, 1, time.Duration(rest*1e9), Cost{}, true)
	}
	estimate := 0.0
	for _, e := range l.Lines {
		estimate += e.Joules.Value
	}
	if measured != nil && estimate > 0 {
		for i := range l.Lines {
			l.Lines[i].Joules = measured.Scale(l.Lines[i].Joules.Value / estimate)
		}
	}
	l.sum()
	if measured != nil && len(l.Lines) > 0 {
		// Shares are rounded: the greatest line takes what they leave, so that the lines add up to what was measured.
		big := 0
		for i, e := range l.Lines {
			if e.Joules.Value > l.Lines[big].Joules.Value {
				big = i
			}
		}
		l.Lines[big].Joules.Value += measured.Value - l.Joules.Value
		l.sum()
	}
}

// sum makes the totals those of the lines.
func (l *Ledger) sum() {
	l.Seconds, l.Cost, l.Joules = 0, Cost{}, Joules{}
	for _, e := range l.Lines {
		l.Seconds += e.Seconds
		l.Cost = l.Cost.Add(e.Cost)
		l.Joules = l.Joules.Add(e.Joules)
	}
}

// Merge adds the lines of another closed account, such as that of an earlier part of the run.
func (l *Ledger) Merge(o *Ledger) {
	if l.index == nil {
		l.index = map[Key]int{}
		for i, e := range l.Lines {
			l.index[e.Key] = i
		}
	}
	for _, e := range o.Lines {
		i, ok := l.index[e.Key]
		if !ok {
			l.index[e.Key] = len(l.Lines)
			l.Lines = append(l.Lines, e)
			continue
		}
		own := &l.Lines[i]
		own.Calls += e.Calls
		own.Seconds += e.Seconds
		own.Cost = own.Cost.Add(e.Cost)
		own.Joules = own.Joules.Add(e.Joules)
	}
	l.Examples += o.Examples
	l.SharesPredicted = l.SharesPredicted || o.SharesPredicted
	l.sum()
}

// By adds lines up under the keys that f gives, greatest energy first.
func (l *Ledger) By(f func(k Key) Key) []Line {
	at := map[Key]int{}
	var out []Line
	for _, e := range l.Lines {
		k := f(e.Key)
		i, ok := at[k]
		if !ok {
			at[k] = len(out)
			e.Key = k
			out = append(out, e)
			continue
		}
		o := &out[i]
		o.Calls += e.Calls
		o.Seconds += e.Seconds
		o.Cost = o.Cost.Add(e.Cost)
		o.Joules = o.Joules.Add(e.Joules)
	}
	slices.SortStableFunc(out, func(a, b Line) int { return cmp.Compare(b.Joules.Value, a.Joules.Value) })
	return out
}

// Table is the account as text: a line for each layer and phase, in the order of the layers, and the total.
func (l *Ledger) Table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %-9s %10s %12s %12s %11s %7s\n", "layer", "phase", "time", "arithmetic", "bytes", "energy", "share")
	seen := map[Key]bool{}
	by := l.By(func(k Key) Key { return Key{Layer: k.Layer, Phase: k.Phase} })
	row := func(name, phase string, sec float64, c Cost, j Joules) {
		share := 0.0
		if l.Joules.Value > 0 {
			share = 100 * j.Value / l.Joules.Value
		}
		fmt.Fprintf(&b, "%-24s %-9s %10s %12s %12s %11s %6.1f%%\n", name, phase, SI(sec, "s"), SI(float64(c.FLOPs), "FLOP"), SI(float64(c.Bytes()), "B"), SI(j.Value, "J"), share)
	}
	for _, e := range l.Lines {
		k := Key{Layer: e.Layer, Phase: e.Phase}
		if seen[k] {
			continue
		}
		seen[k] = true
		for _, s := range by {
			if s.Key == k {
				name := k.Layer
				if name == "" {
					name = "-"
				}
				row(name, k.Phase, s.Seconds, s.Cost, s.Joules)
			}
		}
	}
	row("total", "", l.Seconds, l.Cost, l.Joules)
	fmt.Fprintf(&b, "energy: %v", l.Joules)
	if l.Examples > 0 {
		fmt.Fprintf(&b, "; %s an example", SI(l.Joules.Value/float64(l.Examples), "J"))
	}
	if l.Grid > 0 {
		fmt.Fprintf(&b, "; %s CO2e at %g g/kWh", SI(Carbon(l.Joules.Value, l.Grid), "g"), l.Grid)
	}
	b.WriteByte('\n')
	if l.SharesPredicted {
		b.WriteString("Times of whole programs are measured; what share of them a layer and its phases took is predicted by the cost model.\n")
	}
	return b.String()
}
