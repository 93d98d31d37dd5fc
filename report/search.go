package report

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/compress/search"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

// OfSearch are the sections about a search for a cheaper model: what it found, its Pareto charts, and the layers before and after. Before and after are the metrics on the test data, of the original and of the best.
func OfSearch(r *search.Result, before, after []train.Log) []Section {
	best := r.Find(r.Best)
	found := Section{Title: "What the search found"}
	var text string
	switch {
	case best != nil:
		how := fmt.Sprintf("drops by %.4g", best.Drop)
		if best.Drop < 0 {
			how = fmt.Sprintf("is better by %.4g", -best.Drop)
		}
		text = fmt.Sprintf("The best is %s: it %s on examples held out (a drop of %.4g is allowed).", best.Name, how, r.MaxDrop)
		if r.BreakEven > 0 {
			text += fmt.Sprintf(" The search cost ≈%s, so it has paid for itself after about %s.", energy.SI(r.Spent, "J"), r.Predictions())
		} else {
			text += fmt.Sprintf(" The search cost ≈%s and never pays for itself: the best needs no fewer joules than the original.", energy.SI(r.Spent, "J"))
		}
	default:
		text = fmt.Sprintf("No model drops by at most %.4g and needs less (%s) than the original. The search cost ≈%s.", r.MaxDrop, r.Target, energy.SI(r.Spent, "J"))
		if c := r.Closest(); c != nil {
			text += fmt.Sprintf(" The one that drops least is %s, by %.4g.", c.Name, c.Drop)
		}
	}
	found.Text = text + fmt.Sprintf(" It ended because %s.", r.Stopped)
	if v := r.Doubt(); v != "" {
		found.Text += " Beware: " + v + "."
	}
	if best != nil {
		found.Parts = append(found.Parts, searchSides(r, best, before, after))
	}
	found.Parts = append(found.Parts, candidates(r))
	out := []Section{found, pareto(r)}
	if best != nil {
		t := SearchLayers(r, best)
		out = append(out, Section{Title: "Layer by layer", Parts: []Part{t}, Text: "Each figure is that of the original → that of the best. Bits are those that a weight takes, or needs where few values are shared; joules are estimates for an example in batches of 32, and a layer that ran inside another's kernel has none of its own. " +
			"Sensitivity is by how much the loss of the original grows when the layer loses a quarter of its units (or goes, if it is a block), and when it alone computes on bytes, before anything is learned again."})
	}
	return out
}

// searchSides compares the original and the best.
func searchSides(r *search.Result, best *search.Candidate, before, after []train.Log) *Table {
	t := &Table{Title: "Original and best", Columns: []string{"", "original", "best", "ratio"}, Right: []bool{false, true, true, true}}
	for i, l := range after {
		if i < len(before) {
			t.Rows = append(t.Rows, []string{"test " + l.Name, fmt.Sprintf("%.4f", before[i].Value), fmt.Sprintf("%.4f", l.Value), fmt.Sprintf("%+.4f", l.Value-before[i].Value)})
		}
	}
	o := r.Original
	for _, v := range []struct {
		name     string
		old, now float64
		unit     string
	}{{"energy of an example ≈", o.Joules, best.Joules, "J"}, {"a batch of 1", o.MS / 1e3, best.MS / 1e3, "s"}, {"a batch of 32", o.BatchMS / 1e3, best.BatchMS / 1e3, "s"}, {"parameters", float64(o.Bytes), float64(best.Bytes), "B"}, {"on disk", float64(o.Disk), float64(best.Disk), "B"}} {
		ratio := "–"
		if v.now > 0 {
			ratio = fmt.Sprintf("%.2f×", v.old/v.now)
		}
		if v.now > v.old {
			ratio += " worse"
		}
		t.Rows = append(t.Rows, []string{v.name, Quantity(v.old, v.unit), Quantity(v.now, v.unit), ratio})
	}
	return t
}

// candidates lists all models.
func candidates(r *search.Result) *Table {
	t := &Table{Title: "All models", Columns: []string{"model", r.Original.Quality.Name, "drop", "J/example ≈", "batch of 1", "on disk", "run"}, Right: []bool{false, true, true, true, true, true, false}, Fold: true}
	row := func(name string, m search.Measures, drop float64, run string) {
		t.Rows = append(t.Rows, []string{name, fmt.Sprintf("%.4f", m.Quality.Value), fmt.Sprintf("%+.4f", drop), Quantity(m.Joules, "J"), Quantity(m.MS/1e3, "s"), Quantity(float64(m.Disk), "B"), run})
	}
	row("original", r.Original, 0, "")
	for _, c := range r.Candidates {
		row(c.Name, c.Measures, c.Drop, c.Run)
	}
	return t
}

// pareto draws quality against what the three targets count.
func pareto(r *search.Result) Section {
	s := Section{Title: "Pareto fronts", Text: "Each point is a model with a run of its own, which every command opens. The line joins those that no other beats in both directions: less to the left, better upwards. Quality is that on examples held out."}
	quality, y := func(m search.Measures, _ float64) float64 { return m.Quality.Value }, r.Original.Quality.Name
	if train.LowerIsBetter(y) || strings.HasPrefix(y, "bits") || strings.HasPrefix(y, "perplexity") {
		quality, y = func(_ search.Measures, drop float64) float64 { return 1 - drop }, "quality, the original being 1"
	}
	for _, v := range []struct {
		x, unit string
		of      func(m search.Measures) float64
	}{
		{"energy of an example, estimated", "J", func(m search.Measures) float64 { return m.Joules }},
		{"time of a batch of one", "s", func(m search.Measures) float64 { return m.MS / 1e3 }},
		{"bytes on disk", "B", func(m search.Measures) float64 { return float64(m.Disk) }},
	} {
		p := &Points{Title: y + " and " + v.x, X: v.x, Y: y, XUnit: v.unit, Front: true}
		p.Points = append(p.Points, Point{Label: "original", X: v.of(r.Original), Y: quality(r.Original, 0)})
		for _, c := range r.Candidates {
			p.Points = append(p.Points, Point{Label: c.Name, X: v.of(c.Measures), Y: quality(c.Measures, c.Drop)})
		}
		s.Parts = append(s.Parts, p)
	}
	return s
}

// SearchLayers compares the layers of the original and of a candidate.
func SearchLayers(r *search.Result, c *search.Candidate) *Table {
	t := &Table{Columns: []string{"layer", "bits", "zeros", "FLOPs", "bytes", "joules ≈", "narrower", "as bytes"}, Right: []bool{false, true, true, true, true, true, true, true}}
	now := map[string]search.Layer{}
	for _, l := range c.Detail {
		now[l.Name] = l
	}
	pair := func(a, b string) string {
		if a == b {
			return a
		}
		return a + " → " + b
	}
	rise := func(by map[string]float64, names ...string) string {
		for _, n := range names {
			if v, ok := by[n]; ok {
				return fmt.Sprintf("%+.2g", v)
			}
		}
		return "–"
	}
	for _, l := range r.Original.Detail {
		n, there := now[l.Name]
		bits := func(l search.Layer) string {
			if l.Bits == 0 {
				return "–"
			}
			return fmt.Sprint(l.Bits)
		}
		zeros := func(l search.Layer) string {
			if l.Bits == 0 {
				return "–"
			}
			return fmt.Sprintf("%.0f%%", 100*l.Sparsity)
		}
		row := []string{l.Name}
		if there {
			row = append(row, pair(bits(l), bits(n)), pair(zeros(l), zeros(n)), pair(Quantity(float64(l.FLOPs), ""), Quantity(float64(n.FLOPs), "")), pair(Quantity(float64(l.Bytes), "B"), Quantity(float64(n.Bytes), "B")),
				pair(Quantity(r.Original.Layers[l.Name], "J"), Quantity(c.Layers[l.Name], "J")))
		} else {
			row = append(row, bits(l)+" → gone", zeros(l), Quantity(float64(l.FLOPs), ""), Quantity(float64(l.Bytes), "B"), Quantity(r.Original.Layers[l.Name], "J"))
		}
		t.Rows = append(t.Rows, append(row, rise(r.Narrowed, l.Name, l.Name+":heads", l.Name+":hidden"), rise(r.Quantized, l.Name)))
	}
	return t
}
