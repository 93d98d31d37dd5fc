package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/format/csvlog"
)

// phases are those of a ledger, in the order in which they are stacked; their place is their colour.
var phases = []string{"forward", "backward", "update", "evaluate", "data", "predict", "idle"}

// Quantity writes a number with its unit and a prefix ("1.23 kJ"); with unit "" four significant digits, and with "%" a share in percent.
func Quantity(v float64, unit string) string {
	switch {
	case !finite(v):
		return "–"
	case unit == "%":
		return strconv.FormatFloat(100*v, 'f', 1, 64) + "%"
	case unit != "":
		return energy.SI(v, unit)
	case v == math.Trunc(v) && math.Abs(v) < 1e15:
		return thousands(int64(v))
	case math.Abs(v) >= 1e-3 && math.Abs(v) < 1e6:
		return strconv.FormatFloat(v, 'f', max(0, 3-int(math.Floor(math.Log10(math.Abs(v))))), 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// thousands groups the digits of a whole number.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	sign := ""
	if s[0] == '-' {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0 && len(s) > 4; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return sign + s
}

// Curves are the charts of a history: each value of the training beside that of validation ("loss" and "val_loss"), then what is left, energy and time an epoch among it.
func Curves(h *csvlog.Table) Section {
	s := Section{Title: "Curves"}
	if len(h.Rows) == 0 {
		s.Text = "No epoch has been finished."
		return s
	}
	x := make([]float64, len(h.Rows))
	for i, r := range h.Rows {
		x[i] = float64(r.Key)
	}
	units := map[string]string{"joules": "J", "seconds": "s"}
	titles := map[string]string{"joules": "Energy of an epoch", "seconds": "Time of an epoch"}
	names := slices.Clone(h.Columns)
	slices.SortStableFunc(names, func(a, b string) int { // what the model does before what it costs
		return cmp.Compare(len(units[a]), len(units[b]))
	})
	for _, n := range names {
		base, isVal := strings.CutPrefix(n, "val_")
		if isVal && slices.Contains(names, base) {
			continue
		}
		l := &Lines{Title: cmp.Or(titles[n], strings.ReplaceAll(n, "_", " ")), X: h.Key, Unit: units[n], Zero: units[n] != ""}
		l.Series = append(l.Series, Series{n, x, h.Column(n)})
		if units[n] == "" && slices.Contains(names, "val_"+n) {
			l.Series[0].Name = "training"
			l.Series = append(l.Series, Series{"validation", x, h.Column("val_" + n)})
		}
		if lo, _ := bounds(l.Series[0].Y); math.IsInf(lo, 1) {
			continue // nothing was measured
		}
		s.Parts = append(s.Parts, l)
	}
	t := &Table{Title: "Every epoch", Columns: append([]string{h.Key}, h.Columns...), Fold: true, Right: []bool{true}}
	for range h.Columns {
		t.Right = append(t.Right, true)
	}
	for _, r := range h.Rows {
		row := []string{strconv.FormatInt(r.Key, 10)}
		for k, c := range h.Columns {
			row = append(row, Quantity(r.Values[k], units[c]))
		}
		t.Rows = append(t.Rows, row)
	}
	s.Parts = append(s.Parts, t)
	return s
}

// barRows is the most rows that a chart of layers has; the others are added up in the last.
const barRows = 18

// Ledger is the account of a run: what its phases and its layers took of time, arithmetic, bytes and joules, as bars and as a table whose lines add up to the total.
// Layers stand in the given order (nil: that of the ledger).
func Ledger(l *energy.Ledger, layers []string) Section {
	s := Section{Title: "Cost"}
	s.Text = fmt.Sprintf("%s of arithmetic and %s moved in %s, for %v.", energy.SI(float64(l.Cost.FLOPs), "FLOP"), energy.SI(float64(l.Cost.Bytes()), "B"), energy.SI(l.Seconds, "s"), l.Joules)
	if l.Joules.Source.Measured {
		s.Text += " The total is measured; the lines share it out in the model's proportions."
	} else {
		s.Text += " No energy counter could be read, so joules are a model's estimate, with a wide interval."
	}
	if l.Examples > 0 {
		s.Text += fmt.Sprintf(" That is %s for each training example.", energy.SI(l.Joules.Value/float64(l.Examples), "J"))
	}
	if l.Grid > 0 {
		s.Text += fmt.Sprintf(" At %g g of CO2 equivalent for a kilowatt hour: %s.", l.Grid, energy.SI(energy.Carbon(l.Joules.Value, l.Grid), "g"))
	}
	quantities := []struct {
		title, unit string
		of          func(e energy.Line) float64
	}{
		{"Energy", "J", func(e energy.Line) float64 { return e.Joules.Value }},
		{"Time", "s", func(e energy.Line) float64 { return e.Seconds }},
		{"Arithmetic", "FLOP", func(e energy.Line) float64 { return float64(e.Cost.FLOPs) }},
		{"Bytes moved", "B", func(e energy.Line) float64 { return float64(e.Cost.Bytes()) }},
	}
	used := usedPhases(l)
	for _, q := range quantities {
		b := &Bars{Title: q.title + " by phase", Unit: q.unit, Parts: used, Share: true}
		for i, p := range used {
			row := Bar{Name: p, Values: make([]float64, len(used))}
			for _, e := range l.Lines {
				if e.Phase == p {
					row.Values[i] += q.of(e)
				}
			}
			b.Rows = append(b.Rows, row)
		}
		s.Parts = append(s.Parts, b)
	}
	order := layersOf(l, layers)
	for _, q := range quantities {
		b := &Bars{Title: q.title + " by layer", Unit: q.unit, Parts: used, Share: true}
		for _, name := range order {
			row := Bar{Name: layerName(name), Values: make([]float64, len(used))}
			for _, e := range l.Lines {
				if e.Layer == name {
					row.Values[slices.Index(used, e.Phase)] += q.of(e)
				}
			}
			b.Rows = append(b.Rows, row)
		}
		b.fold(barRows)
		s.Parts = append(s.Parts, b)
	}
	s.Parts = append(s.Parts, ledgerTable(l, order, used))
	return s
}

// usedPhases are the phases of the ledger, known ones first and in their order.
func usedPhases(l *energy.Ledger) []string {
	seen := map[string]bool{}
	for _, e := range l.Lines {
		seen[e.Phase] = true
	}
	var out []string
	for _, p := range phases {
		if seen[p] {
			out = append(out, p)
			delete(seen, p)
		}
	}
	for _, e := range l.Lines {
		if seen[e.Phase] {
			out = append(out, e.Phase)
			delete(seen, e.Phase)
		}
	}
	return out
}

// layersOf are the ledger's layers: those of the list and what is inside them first, in its order, and last what belongs to no layer.
func layersOf(l *energy.Ledger, list []string) []string {
	place := func(layer string) int {
		if layer == "" {
			return len(list) + 1
		}
		top, _, _ := strings.Cut(layer, "/")
		for i, n := range list {
			if n == layer || n == top {
				return i
			}
		}
		return len(list)
	}
	var out []string
	for _, e := range l.Lines {
		if !slices.Contains(out, e.Layer) {
			out = append(out, e.Layer)
		}
	}
	slices.SortStableFunc(out, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	return out
}

func layerName(layer string) string {
	if layer == "" {
		return "outside any layer"
	}
	return layer
}

// fold adds up the rows beyond the n greatest, keeping the order of the others.
func (b *Bars) fold(n int) {
	if len(b.Rows) <= n {
		return
	}
	totals := make([]float64, len(b.Rows))
	for i, r := range b.Rows {
		totals[i] = sum(r.Values)
	}
	sorted := slices.Clone(totals)
	slices.SortFunc(sorted, func(a, b float64) int { return cmp.Compare(b, a) })
	limit := sorted[n-2]
	rest := Bar{Values: make([]float64, len(b.Parts))}
	var keep []Bar
	dropped := 0
	for i, r := range b.Rows {
		if totals[i] >= limit && len(keep) < n-1 {
			keep = append(keep, r)
			continue
		}
		dropped++
		for k, v := range r.Values {
			rest.Values[k] += v
		}
	}
	rest.Name = fmt.Sprintf("%d others", dropped)
	b.Rows = append(keep, rest)
}

func ledgerTable(l *energy.Ledger, order, used []string) *Table {
	t := &Table{Title: "The account by layer and phase", Columns: []string{"layer", "phase", "arithmetic", "executed", "bytes", "time", "energy", "interval", "share"},
		Right: []bool{false, false, true, true, true, true, true, true, true}}
	by := l.By(func(k energy.Key) energy.Key { return energy.Key{Layer: k.Layer, Phase: k.Phase} })
	row := func(layer, phase string, c energy.Cost, sec float64, j energy.Joules) []string {
		share := math.NaN()
		if l.Joules.Value > 0 {
			share = j.Value / l.Joules.Value
		}
		interval := "measured"
		if !j.Source.Measured {
			interval = energy.SI(j.Low, "J") + " to " + energy.SI(j.High, "J")
		}
		if j.High == 0 {
			interval = "–"
		}
		return []string{layer, phase, energy.SI(float64(c.FLOPs), "FLOP"), energy.SI(float64(c.Executed), "FLOP"), energy.SI(float64(c.Bytes()), "B"), energy.SI(sec, "s"), energy.SI(j.Value, "J"), interval, Quantity(share, "%")}
	}
	for _, name := range order {
		for _, p := range used {
			for _, e := range by {
				if e.Layer == name && e.Phase == p {
					t.Rows = append(t.Rows, row(layerName(name), p, e.Cost, e.Seconds, e.Joules))
				}
			}
		}
	}
	t.Total = row("total", "", l.Cost, l.Seconds, l.Joules)
	return t
}

// maxMatrix is the most classes that a confusion matrix shows; with more, the commonest mistakes are listed.
const maxMatrix = 26

// Confusion shows which classes are taken for which: counts[truth][guess], as a matrix and as precision and recall of each class.
func Confusion(names []string, counts [][]int) []Part {
	var parts []Part
	if len(names) <= maxMatrix {
		parts = append(parts, &Matrix{Title: "Confusion matrix", RowTitle: "truth", ColumnTitle: "prediction", Rows: names, Columns: names, Counts: counts})
	}
	type pair struct{ i, j, n int }
	var wrong []pair
	total, right := 0, 0
	for i, row := range counts {
		for j, n := range row {
			total += n
			if i == j {
				right += n
			} else if n > 0 {
				wrong = append(wrong, pair{i, j, n})
			}
		}
	}
	slices.SortStableFunc(wrong, func(a, b pair) int { return cmp.Compare(b.n, a.n) })
	if len(names) > maxMatrix {
		t := &Table{Title: "The commonest mistakes", Columns: []string{"truth", "prediction", "times"}, Right: []bool{false, false, true}}
		for _, w := range wrong[:min(len(wrong), 24)] {
			t.Rows = append(t.Rows, []string{names[w.i], names[w.j], thousands(int64(w.n))})
		}
		parts = append(parts, t)
	}
	t := &Table{Title: "Classes", Columns: []string{"class", "examples", "precision", "recall", "F1", "taken most often for"}, Right: []bool{false, true, true, true, true, false}, Fold: len(names) > maxMatrix}
	for i, name := range names {
		have, said := 0, 0
		for j := range names {
			have, said = have+counts[i][j], said+counts[j][i]
		}
		tp := float64(counts[i][i])
		p, r := tp/float64(said), tp/float64(have)
		most := "–"
		for _, w := range wrong {
			if w.i == i {
				most = fmt.Sprintf("%s (%d)", names[w.j], w.n)
				break
			}
		}
		t.Rows = append(t.Rows, []string{name, thousands(int64(have)), Quantity(p, "%"), Quantity(r, "%"), Quantity(2*tp/float64(said+have), "%"), most})
	}
	t.Total = []string{"all", thousands(int64(total)), "", Quantity(float64(right)/float64(total), "%"), "", ""}
	return append(parts, t)
}

// Settings is a table of names and values.
func Settings(title string, pairs ...[2]string) *Table {
	t := &Table{Title: title}
	for _, p := range pairs {
		if p[1] != "" {
			t.Rows = append(t.Rows, []string{p[0], p[1]})
		}
	}
	return t
}
