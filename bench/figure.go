package bench

import (
	"math"
	"slices"
)

// Unit is what a row's figures are in.
type Unit string

// The units of rows.
const (
	Milliseconds Unit = "ms"
	Megabytes    Unit = "MB"    // 10⁶ bytes
	Speedup      Unit = "×"     // more is better
	Count        Unit = "count" // of allocations
)

// Figure is what one side reached in a work, in the row's unit.
type Figure struct {
	Name    string    `json:"name"`
	Version string    `json:"version,omitempty"`
	Free    bool      `json:"not_held,omitempty"` // it used more than the instruction set that Joule was held to, and is not compared with
	Values  []float64 `json:"values"`
	Error   string    `json:"error,omitempty"`
}

// ok reports whether there is anything to show.
func (f *Figure) ok() bool { return f.Error == "" && len(f.Values) > 0 }

// Best is the least value, or for a speedup the greatest.
func (f *Figure) best(u Unit) float64 {
	if u == Speedup {
		return slices.Max(f.Values)
	}
	return slices.Min(f.Values)
}

// Median is the middle value.
func (f *Figure) Median() float64 {
	s := slices.Sorted(slices.Values(f.Values))
	return s[len(s)/2]
}

// Row is the result of a work, or of one of the things that were measured in it.
type Row struct {
	Work    string    `json:"work"`
	Group   string    `json:"group"`
	Unit    Unit      `json:"unit"`
	Share   float64   `json:"share_of_peak,omitempty"`
	Joule   *Figure   `json:"joule"`
	Peers   []*Figure `json:"peers,omitempty"`
	Against string    `json:"best_peer,omitempty"`
	FLOPs   float64   `json:"flops,omitempty"`
	Batch   int       `json:"batch,omitempty"`
	Bytes   int       `json:"bytes,omitempty"`                 // that an iteration reads
	Read    float64   `json:"read_bytes_per_second,omitempty"` // what plain reading of as many bytes reached, before and after
	Ratio   float64   `json:"ratio,omitempty"`                 // of the medians: how many times better than the best peer, whichever way is better
}

// rate is the bytes that are read in a second.
func (r *Row) rate() float64 { return float64(r.Bytes) / (r.Joule.Median() * 1e-3) }

// compare finds the best peer and the ratio to it.
func (r *Row) compare() {
	r.Against, r.Ratio = "", 0
	if !r.Joule.ok() {
		return
	}
	for _, f := range r.Peers {
		if !f.ok() || f.Free {
			continue
		}
		ratio := f.Median() / r.Joule.Median()
		if r.Unit == Speedup {
			ratio = 1 / ratio
		}
		if r.Against == "" || ratio < r.Ratio {
			r.Against, r.Ratio = f.Name, ratio
		}
	}
}

// mean is what the rows of a group have in common.
type mean struct {
	group, at   string // at: the row with the least ratio
	n           int
	mean, least float64
}

// means are the geometric means of the ratios of each group that has at least two, in the order of the rows. Rows without a group have none.
func means(rows []Row) []mean {
	var all []mean
	for _, r := range rows {
		if r.Ratio <= 0 || r.Group == "" {
			continue
		}
		i := slices.IndexFunc(all, func(m mean) bool { return m.group == r.Group })
		if i < 0 {
			i, all = len(all), append(all, mean{group: r.Group, least: math.Inf(1)})
		}
		m := &all[i]
		m.n, m.mean = m.n+1, m.mean+math.Log(r.Ratio)
		if r.Ratio < m.least {
			m.least, m.at = r.Ratio, r.Work
		}
	}
	all = slices.DeleteFunc(all, func(m mean) bool { return m.n < 2 })
	for i := range all {
		all[i].mean = math.Exp(all[i].mean / float64(all[i].n))
	}
	return all
}
