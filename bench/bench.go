// Package bench measures Joule, and peers beside it, on the same work in one run.
//
// A work is a named piece of computing, such as the main network's train step at batch 32. Each side runs it some dozens of times in a round, rounds
// alternate between the sides, and the table quotes the best and the median of all. Losses are printed like gains.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/peak"
)

// Options say what to measure.
type Options struct {
	Works   []string // names, or beginnings of names; none: all
	Peers   bool
	Dir     string
	Python  string
	Only    []string
	Rounds  int
	Threads int
	JSON    bool
}

// Request is what a peer is asked to run.
type Request map[string]any

// work is one row of the table.
type work struct {
	name    string
	group   string  // rows of a group have a geometric mean
	request Request // as peers understand it
	flops   float64 // of one iteration, for the share of peak; 0: not counted
	bytes   int     // that an iteration reads: its speed is quoted as a share of what plain reading of as many bytes reaches; 0: not counted
	setup   func(threads int) (run func() error, stop func(), err error)
}

// Figure is one side's times for a work, in milliseconds.
type Figure struct {
	Name    string    `json:"name"`
	Version string    `json:"version,omitempty"`
	MS      []float64 `json:"ms"`
	RSS     int64     `json:"rss_bytes,omitempty"`
	Error   string    `json:"error,omitempty"`
}

// Best is the least time, Median the middle one.
func (f *Figure) Best() float64 { return slices.Min(f.MS) }

// Median is the middle time.
func (f *Figure) Median() float64 {
	s := slices.Sorted(slices.Values(f.MS))
	return s[len(s)/2]
}

// Row is the result of a work.
type Row struct {
	Work    string    `json:"work"`
	Group   string    `json:"group"`
	Share   float64   `json:"share_of_peak,omitempty"`
	Joule   *Figure   `json:"joule"`
	Peers   []*Figure `json:"peers,omitempty"`
	Against string    `json:"best_peer,omitempty"`
	FLOPs   float64   `json:"flops,omitempty"`
	Bytes   int       `json:"bytes,omitempty"`
	Read    float64   `json:"read_bytes_per_second,omitempty"` // what plain reading of as many bytes reached, before and after
	Ratio   float64   `json:"ratio,omitempty"`                 // of the medians: the best peer's time over ours
}

// rate is the bytes that are read in a second.
func (r *Row) rate() float64 { return float64(r.Bytes) / (r.Joule.Median() * 1e-3) }

// Run measures and prints.
func Run(ctx context.Context, out, log io.Writer, o Options) error {
	ws, err := chosen(o.Works)
	if err != nil {
		return err
	}
	var ps []*peer
	var skipped []Skip
	if o.Peers {
		if ps, skipped, err = startPeers(ctx, log, o); err != nil {
			return err
		}
		defer func() {
			for _, p := range ps {
				p.stop()
			}
		}()
	}
	top := peak.FLOPS(o.Threads)
	var rows []Row
	for _, w := range ws {
		r, err := measure(ctx, log, w, ps, o, top)
		if err != nil {
			return err
		}
		rows = append(rows, r)
	}
	if o.JSON {
		return json.NewEncoder(out).Encode(map[string]any{"isa": isa.Current().String(), "threads": o.Threads, "peak_flops": top, "go": runtime.Version(), "rows": rows, "skipped": skipped})
	}
	table(out, rows, ps, skipped, o, top)
	return nil
}

func chosen(names []string) ([]work, error) {
	all := works()
	if len(names) == 0 {
		return all, nil
	}
	var out []work
	for _, n := range names {
		found := false
		for _, w := range all {
			if strings.HasPrefix(w.name, n) {
				found = true
				if !slices.ContainsFunc(out, func(o work) bool { return o.name == w.name }) {
					out = append(out, w)
				}
			}
		}
		if !found {
			var known []string
			for _, w := range all {
				known = append(known, w.name)
			}
			return nil, fmt.Errorf("bench: no work begins with %q; known: %s", n, strings.Join(known, ", "))
		}
	}
	return out, nil
}

// measure lets all sides take turns at a work.
func measure(ctx context.Context, log io.Writer, w work, ps []*peer, o Options, top float64) (Row, error) {
	row := Row{Work: w.name, Group: w.group, FLOPs: w.flops, Bytes: w.bytes, Joule: &Figure{Name: "joule"}}
	run, stop, err := w.setup(o.Threads)
	if err != nil {
		return row, fmt.Errorf("bench: %s: %w", w.name, err)
	}
	defer stop()
	if err := run(); err != nil { // warm
		return row, fmt.Errorf("bench: %s: %w", w.name, err)
	}
	start := time.Now()
	if err := run(); err != nil {
		return row, err
	}
	if w.bytes > 0 {
		row.Read = peak.ReadRate(o.Threads, w.bytes)
	}
	iters := int(min(200, max(3, 0.3/time.Since(start).Seconds())))
	figs := make([]*Figure, len(ps))
	for i, p := range ps {
		figs[i] = &Figure{Name: p.name, Version: p.version}
	}
	for range o.Rounds {
		if err := ctx.Err(); err != nil {
			return row, err
		}
		for range iters {
			t := time.Now()
			if err := run(); err != nil {
				return row, err
			}
			row.Joule.MS = append(row.Joule.MS, time.Since(t).Seconds()*1e3)
		}
		for i, p := range ps {
			if figs[i].Error == "" {
				p.measure(w, max(3, iters/4), figs[i])
			}
		}
	}
	if w.bytes > 0 {
		row.Read = max(row.Read, peak.ReadRate(o.Threads, w.bytes))
	}
	if w.flops > 0 {
		row.Share = w.flops / (row.Joule.Median() * 1e-3) / top
	}
	for _, f := range figs {
		if f.Error == "" && len(f.MS) > 0 {
			if row.Against == "" || row.Joule.Median()*row.Ratio > f.Median() {
				row.Against, row.Ratio = f.Name, f.Median()/row.Joule.Median()
			}
		}
		row.Peers = append(row.Peers, f)
	}
	fmt.Fprintf(log, "%s: %.3f ms\n", w.name, row.Joule.Median())
	return row, nil
}

// table prints rows as Markdown.
func table(out io.Writer, rows []Row, ps []*peer, skipped []Skip, o Options, top float64) {
	fmt.Fprintf(out, "%s, %d threads, measured peak %.0f GFLOP/s, %s. Milliseconds: median (best).\n\n", isa.Current(), o.Threads, top/1e9, runtime.Version())
	head, line := "| work | joule | share of peak |", "| --- | --- | --- |"
	if len(ps) > 0 {
		head, line = head+" best peer | ratio |", line+" --- | --- |"
		for _, p := range ps {
			head, line = head+" "+p.name+" "+p.version+" |", line+" --- |"
		}
	}
	fmt.Fprintf(out, "%s\n%s\n", head, line)
	for _, r := range rows {
		share := "–"
		if r.Share > 0 {
			share = fmt.Sprintf("%.0f%%", 100*r.Share)
		}
		if r.Read > 0 {
			share = fmt.Sprintf("%.1f GB/s, %.0f%% of %.1f", r.rate()/1e9, 100*r.rate()/r.Read, r.Read/1e9)
		}
		fmt.Fprintf(out, "| %s | %.3f (%.3f) | %s |", r.Work, r.Joule.Median(), r.Joule.Best(), share)
		if len(ps) > 0 {
			if r.Against != "" {
				fmt.Fprintf(out, " %s | **%.2f×** |", r.Against, r.Ratio)
			} else {
				fmt.Fprint(out, " – | – |")
			}
			for _, f := range r.Peers {
				if f.Error != "" || len(f.MS) == 0 {
					fmt.Fprint(out, " – |")
				} else {
					fmt.Fprintf(out, " %.3f (%.3f)", f.Median(), f.Best())
					if r.FLOPs > 0 && top > 0 {
						fmt.Fprintf(out, " %.0f%%", 100*r.FLOPs/(f.Median()*1e-3)/top)
					}
					fmt.Fprint(out, " |")
				}
			}
		}
		fmt.Fprintln(out)
	}
	for _, g := range means(rows) {
		fmt.Fprintf(out, "\nGeometric mean of the %d ratios of %s: **%.2f×**, the least %.2f× (%s).", g.n, g.group, g.mean, g.least, g.at)
	}
	fmt.Fprint(out, "\n\n")
	for _, s := range skipped {
		fmt.Fprintf(out, "- %s did not run: %s\n", s.Peer, s.Reason)
	}
	for _, r := range rows {
		for _, f := range r.Peers {
			if f.Error != "" && f.Error != notItsWork {
				fmt.Fprintf(out, "- %s failed at %s: %s\n", f.Name, r.Work, f.Error)
			}
		}
	}
}

// mean is what the rows of a group have in common.
type mean struct {
	group, at   string // at: the row with the least ratio
	n           int
	mean, least float64
}

// means are the geometric means of the ratios of each group that has at least two, in the order of the rows.
func means(rows []Row) []mean {
	var all []mean
	for _, r := range rows {
		if r.Ratio <= 0 {
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
