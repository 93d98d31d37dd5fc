package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// table prints a report as Markdown: tables for each unit, one for each group, without the peers that have nothing in it.
func (r *Report) table(out io.Writer) {
	one := ""
	if r.Peak1 > 0 && r.Threads > 1 {
		one = fmt.Sprintf(" (%.0f with one thread)", r.Peak1/1e9)
	}
	fmt.Fprintf(out, "%s, %s, %d CPUs, %s, %d threads, measured peak %.0f GFLOP/s%s, %s. Median (best of all).\n", r.Date, r.Machine, r.CPUs, r.ISA, r.Threads, r.Peak/1e9, one, r.Go)
	if r.ISA != r.Best {
		fmt.Fprintf(out, "The processor has %s; Joule was held to %s.", r.Best, r.ISA)
		if len(r.Capped) > 0 {
			fmt.Fprintf(out, " Peers were held to AVX2 by %s. Those marked † choose their kernels without asking such a variable, at least for some products; they are shown and not compared with.", list(r.Capped))
		} else {
			fmt.Fprint(out, " Peers used what they found.")
		}
		fmt.Fprintln(out)
	}
	if r.MPI != "" {
		fmt.Fprintf(out, "Joule's ranks spoke through %s.\n", r.MPI)
	}
	for _, u := range []Unit{Milliseconds, Megabytes, Speedup, Count} {
		rows := slices.DeleteFunc(slices.Clone(r.Rows), func(w Row) bool { return w.Unit != u })
		if len(rows) > 0 {
			fmt.Fprintf(out, "\n%s:\n", headings[u])
		}
		for len(rows) > 0 { // a table for each group
			g := rows[0].Group
			other := func(w Row) bool { return w.Group != g }
			tableOf(out, u, slices.DeleteFunc(slices.Clone(rows), other))
			rows = slices.DeleteFunc(rows, func(w Row) bool { return !other(w) })
		}
	}
	fmt.Fprintln(out)
	for _, s := range r.Skipped {
		fmt.Fprintf(out, "- %s did not run: %s\n", s.Peer, s.Reason)
	}
	for _, w := range r.Rows {
		for _, f := range w.Peers {
			if f.Error != "" && f.Error != notItsWork {
				fmt.Fprintf(out, "- %s failed at %s: %s\n", f.Name, w.Work, f.Error)
			}
		}
	}
}

func list(words []string) string {
	s := ""
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			s += " and "
		default:
			s += ", "
		}
		s += w
	}
	return s
}

// side is a column of peers: name and version.
type side struct {
	name, version string
	free          bool
}

func sides(rows []Row) []side {
	var out []side
	for _, r := range rows {
		for _, f := range r.Peers {
			if s := (side{f.Name, f.Version, f.Free}); f.ok() && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b side) int { return order(a.name) - order(b.name) })
	return out
}

// order is a peer's place among the columns.
func order(name string) int {
	if i := slices.IndexFunc(peerPrograms, func(p program) bool { return p.name == name }); i >= 0 {
		return i
	}
	return len(peerPrograms)
}

var headings = map[Unit]string{Milliseconds: "Milliseconds", Megabytes: "Peak memory, MB", Speedup: "Times faster", Count: "Allocations"}

func (u Unit) print(f *Figure) string {
	switch u {
	case Megabytes:
		return fmt.Sprintf("%.0f", f.Median())
	case Speedup, Count:
		return fmt.Sprintf("%.2f", f.Median())
	}
	return fmt.Sprintf("%.3f (%.3f)", f.Median(), f.best(u))
}

func tableOf(out io.Writer, u Unit, rows []Row) {
	cols := sides(rows)
	head, line := "| work | joule |", "| --- | --- |"
	shares := slices.ContainsFunc(rows, func(r Row) bool { return r.Share > 0 || r.Read > 0 })
	if shares {
		head, line = head+" share of peak |", line+" --- |"
	}
	if len(cols) > 0 {
		head, line = head+" best peer | ratio |", line+" --- | --- |"
		for _, c := range cols {
			head, line = head+" "+c.name, line+" --- |"
			if c.version != "" {
				head += " " + c.version
			}
			if c.free {
				head += " †"
			}
			head += " |"
		}
	}
	fmt.Fprintf(out, "\n%s\n%s\n", head, line)
	for _, r := range rows {
		fmt.Fprintf(out, "| %s |", r.Work)
		switch {
		case r.Joule.ok():
			fmt.Fprintf(out, " %s |", u.print(r.Joule))
		default:
			fmt.Fprint(out, " – |")
		}
		switch {
		case shares && r.Read > 0 && r.Joule.ok():
			fmt.Fprintf(out, " %.1f GB/s, %s of %.1f |", r.rate()/1e9, percent(r.rate()/r.Read), r.Read/1e9)
		case shares:
			fmt.Fprintf(out, " %s |", percent(r.Share))
		}
		if len(cols) > 0 {
			if r.Against != "" {
				fmt.Fprintf(out, " %s | **%.2f×** |", r.Against, r.Ratio)
			} else {
				fmt.Fprint(out, " – | – |")
			}
		}
		for _, c := range cols {
			i := slices.IndexFunc(r.Peers, func(f *Figure) bool { return side{f.Name, f.Version, f.Free} == c && f.ok() })
			if i < 0 {
				fmt.Fprint(out, " – |")
				continue
			}
			fmt.Fprintf(out, " %s", u.print(r.Peers[i]))
			if r.Share > 0 { // the same arithmetic in another time
				fmt.Fprintf(out, " %s", percent(r.Share*r.Joule.Median()/r.Peers[i].Median()))
			}
			fmt.Fprint(out, " |")
		}
		fmt.Fprintln(out)
	}
	for _, g := range means(rows) {
		fmt.Fprintf(out, "\nGeometric mean of the %d ratios of %s: **%.2f×**, the least %.2f× (%s).\n", g.n, g.group, g.mean, g.least, g.at)
	}
	linear(out, u, rows)
}

func percent(share float64) string {
	if share <= 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f%%", 100*share)
}

// linear says how the figures of group scale grow with the batch: what each further example costs from one batch to the next greater.
func linear(out io.Writer, u Unit, rows []Row) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(r Row) bool { return r.Group != scaling || r.Batch == 0 || !r.Joule.ok() })
	slices.SortFunc(rows, func(a, b Row) int { return a.Batch - b.Batch })
	if len(rows) < 3 {
		return
	}
	scale, unit := 1e3, "µs"
	if u == Megabytes {
		unit = "kB"
	}
	fmt.Fprintf(out, "\nA further example costs, from batch to batch:")
	for i, r := range rows[1:] {
		d := (r.Joule.Median() - rows[i].Joule.Median()) / float64(r.Batch-rows[i].Batch)
		fmt.Fprintf(out, " %d to %d: %.1f %s;", rows[i].Batch, r.Batch, d*scale, unit)
	}
	last := rows[len(rows)-1]
	fmt.Fprintf(out, " of the whole at batch %d: %.1f %s an example.\n", last.Batch, last.Joule.Median()/float64(last.Batch)*scale, unit)
}

// Print reads reports that were saved with --out and prints their tables. Reports of one machine and setting, which share date, instruction set and threads, become one.
func Print(out io.Writer, files []string) error {
	var all []*Report
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("bench: %w", err)
		}
		r := &Report{}
		if err := json.Unmarshal(b, r); err != nil {
			return fmt.Errorf("bench: %s is no report of joule bench: %w", name, err)
		}
		if err := r.check(); err != nil {
			return fmt.Errorf("bench: %s: %w", name, err)
		}
		i := slices.IndexFunc(all, func(o *Report) bool {
			return o.Date == r.Date && o.Machine == r.Machine && o.ISA == r.ISA && o.Threads == r.Threads && o.Go == r.Go && slices.Equal(o.Capped, r.Capped)
		})
		if i < 0 {
			all = append(all, r)
			continue
		}
		all[i].Peak, all[i].Peak1 = max(all[i].Peak, r.Peak), max(all[i].Peak1, r.Peak1)
		all[i].Rows = append(all[i].Rows, r.Rows...)
		for _, s := range r.Skipped {
			if !slices.Contains(all[i].Skipped, s) {
				all[i].Skipped = append(all[i].Skipped, s)
			}
		}
	}
	for i, r := range all {
		if i > 0 {
			fmt.Fprintln(out)
		}
		r.table(out)
	}
	return nil
}

// check reports what a file lacks that the tables need.
func (r *Report) check() error {
	if len(r.Rows) == 0 {
		return errors.New("it has no rows: this is not what joule bench --out writes")
	}
	for i, w := range r.Rows {
		if w.Joule == nil || slices.Contains(w.Peers, nil) {
			return fmt.Errorf("row %d (%s) has no figures", i+1, w.Work)
		}
		if _, ok := headings[w.Unit]; !ok {
			return fmt.Errorf("row %d (%s) has the unknown unit %q", i+1, w.Work, w.Unit)
		}
	}
	return nil
}
