// Package bench measures Joule, and peers beside it, on the same work in one run.
//
// A work is a named piece of computing, such as the main network's train step at batch 32. Each side runs it some dozens of times in a turn, turns
// alternate between the sides, and the table quotes the best and the median of all. Losses are printed like gains.
//
// Some works need processes of their own, also for Joule: memory, the number of threads, the whole main job. Joule then is a peer of itself (Serve).
package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/peak"
)

// Options say what to measure.
type Options struct {
	Works    []string // names, or beginnings of names; none: all
	Peers    bool
	Dir      string // of the peers' programs
	Python   string
	Only     []string
	Rounds   int
	Threads  int
	Uncapped bool // where Joule is held to AVX2, let the peers use what they find
	JSON     bool
	Out      string   // a file for the report in JSON
	Launcher string   // that starts ranks; "": mpirun
	Self     []string // the command that is this program; needed by works with processes of their own

	turn time.Duration // about how long a side runs until it is another's turn; 0: ownTurn for Joule, peerTurn for peers
}

// How long turns last, and how often a work is run in one at most.
const (
	ownTurn  = 300 * time.Millisecond
	peerTurn = 200 * time.Millisecond
	mostRuns = 500
)

// runs is how often a work that takes each for an iteration is run in a turn.
func (o *Options) runs(each, usual time.Duration, least int) int {
	if o.turn > 0 {
		usual = o.turn
	}
	return max(least, int(min(mostRuns, usual/max(each, 1))))
}

// capped reports whether peers are to be held to AVX2, as Joule is.
func (o *Options) capped() bool {
	return !o.Uncapped && isa.Best() > isa.AVX2 && isa.Current() == isa.AVX2
}

// Request is what a peer is asked to run.
type Request map[string]any

// work is a piece of computing. How it is measured follows from which functions it has.
type work struct {
	name    string
	group   string  // rows of a group have a geometric mean
	request Request // as peers understand it; nil: not a work for peers
	flops   float64 // of one iteration, for the share of peak; 0: not counted
	batch   int     // examples of an iteration, where the table needs it
	bytes   int     // that an iteration reads: its speed is quoted as a share of what plain reading of as many bytes reaches; 0: not counted

	// An iteration is run; stop ends it. This alone is timed in turns with the peers.
	setup func(threads int) (run func() error, stop func(), err error)
	// Another way to do the same within this process, timed in turns like a peer of the given name.
	rival     string
	rivalSide func(threads int) (run func() error, stop func(), err error)
	// A work of several ranks: an iteration is run by all of them together, or, apart, by each on its part with no message.
	ranks  int
	across func(threads int, c *dist.Comm, apart bool) (run func() error, stop func(), err error)
	// Or rows that are measured in a way of their own.
	measure func(ctx context.Context, s *session, w work) ([]Row, error)
}

// session is a run of the benchmarks.
type session struct {
	o      *Options
	log    io.Writer
	report *Report
	peers  []*peer
}

// Run measures and prints.
func Run(ctx context.Context, out, log io.Writer, o Options) error {
	ws, err := chosen(o.Works)
	if err != nil {
		return err
	}
	s := &session{o: &o, log: log, report: newReport(o.Threads)}
	if o.Peers && o.capped() {
		s.report.Capped = capsOf()
	}
	if o.Peers && slices.ContainsFunc(ws, func(w work) bool { return w.measure == nil && w.request != nil }) {
		if s.peers, s.report.Skipped, err = startPeers(ctx, log, &o); err != nil {
			return err
		}
		defer func() {
			for _, p := range s.peers {
				p.stop()
			}
		}()
	}
	for _, w := range ws {
		var rows []Row
		if w.measure != nil {
			rows, err = w.measure(ctx, s, w)
		} else {
			rows, err = s.turns(ctx, w)
		}
		if err != nil {
			return fmt.Errorf("bench: %s: %w", w.name, err)
		}
		for i := range rows {
			r := &rows[i]
			if r.Unit == "" {
				r.Unit = Milliseconds
			}
			if r.Joule.ok() {
				if r.Unit == Milliseconds && r.FLOPs > 0 {
					r.Share = r.FLOPs / (r.Joule.Median() * 1e-3) / s.report.Peak
				}
				fmt.Fprintf(log, "%s: %s %s\n", r.Work, r.Unit.print(r.Joule), r.Unit)
			}
			r.compare()
		}
		s.report.Rows = append(s.report.Rows, rows...)
		if err := s.save(); err != nil { // after every work: a long run that is broken off leaves what it has
			return fmt.Errorf("bench: --out: %w", err)
		}
	}
	if o.JSON {
		return json.NewEncoder(out).Encode(s.report)
	}
	s.report.table(out)
	return nil
}

// save writes the report so far, if it is to be kept.
func (s *session) save() error {
	if s.o.Out == "" {
		return nil
	}
	b, err := json.MarshalIndent(s.report, "", " ")
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(s.o.Out, append(b, '\n'))
}

// chosen finds works by their names or the beginnings of names.
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

// pause lies between the turns of two sides, whose threads may still be spinning: OpenBLAS's yield in a loop for 2^26 cycles (about 25 ms) before they sleep, and took half of the other
// side's time with a shorter pause.
const pause = 60 * time.Millisecond

// timed is a side within this process.
type timed struct {
	run   func() error
	iters int
	f     *Figure
}

// turn runs the side some times.
func (t *timed) turn() error {
	time.Sleep(pause)
	for range t.iters {
		began := time.Now()
		if err := t.run(); err != nil {
			return err
		}
		t.f.Values = append(t.f.Values, time.Since(began).Seconds()*1e3)
	}
	return nil
}

// warm prepares a side: it runs twice, and the second run tells how often a turn may run it.
func (o *Options) warm(name string, run func() error) (*timed, error) {
	if err := run(); err != nil {
		return nil, err
	}
	began := time.Now()
	if err := run(); err != nil {
		return nil, err
	}
	return &timed{run, o.runs(time.Since(began), ownTurn, 3), &Figure{Name: name}}, nil
}

// turns lets all sides take turns at a work.
func (s *session) turns(ctx context.Context, w work) ([]Row, error) {
	row := Row{Work: w.name, Group: w.group, FLOPs: w.flops, Batch: w.batch, Bytes: w.bytes}
	var own []*timed
	for _, side := range []struct {
		name  string
		setup func(threads int) (func() error, func(), error)
	}{{"joule", w.setup}, {w.rival, w.rivalSide}} {
		if side.setup == nil {
			continue
		}
		run, stop, err := side.setup(s.o.Threads)
		if err != nil {
			return nil, err
		}
		defer stop()
		t, err := s.o.warm(side.name, run)
		if err != nil {
			return nil, err
		}
		own = append(own, t)
	}
	if w.bytes > 0 {
		row.Read = peak.ReadRate(s.o.Threads, w.bytes)
	}
	peers := s.peers
	if w.request == nil {
		peers = nil
	}
	figs := make([]*Figure, len(peers))
	for i, p := range peers {
		figs[i] = p.figure()
		p.last, p.spent = 0, 0
	}
	for range s.o.Rounds {
		for _, t := range own {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if err := t.turn(); err != nil {
				return nil, err
			}
		}
		for i, p := range peers {
			if figs[i].Error == "" {
				time.Sleep(pause)
				p.measure(s.o, w, figs[i])
			}
		}
	}
	if w.bytes > 0 {
		row.Read = max(row.Read, peak.ReadRate(s.o.Threads, w.bytes))
	}
	row.Joule = own[0].f
	for _, t := range own[1:] {
		row.Peers = append(row.Peers, t.f)
	}
	row.Peers = append(row.Peers, figs...)
	return []Row{row}, nil
}
