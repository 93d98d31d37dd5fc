package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"time"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dist/mpi"
	"github.com/jouleml/joule/internal/rss"
)

// Serve makes this program a peer of another one: it speaks the protocol of peers/peer.py, with one kind of request, {"name": a work, "iters": N}. Started by mpirun its ranks are one peer.
func Serve(in io.Reader, out io.Writer, threads int) error {
	s := &server{threads: threads, stop: func() {}}
	defer func() { s.stop() }()
	if mpi.Launched() {
		return s.ranks(in, out)
	}
	return s.answer(in, out, "", func([]byte) error { return nil })
}

// lastLine ends the requests, as the end of the input does.
const lastLine = "end"

// server runs works on request.
type server struct {
	threads int
	comm    *dist.Comm // nil: one process
	request servedWork
	run     func() error
	stop    func()
}

// servedWork is what a request asks for.
type servedWork struct {
	Name  string
	Apart bool // works of ranks: no rank waits for another
}

// answer reads requests and answers them; each is told of before it is served.
func (s *server) answer(in io.Reader, out io.Writer, version string, tell func(line []byte) error) error {
	answers := json.NewEncoder(out)
	if err := answers.Encode(map[string]any{"ready": true, "threads": s.threads, "version": version}); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() && lines.Text() != lastLine {
		if err := tell(lines.Bytes()); err != nil {
			return err
		}
		a, err := s.serve(lines.Bytes())
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
		if err != nil && s.comm != nil {
			return err // the ranks may not be at the same point any more
		}
	}
	return lines.Err()
}

func (s *server) serve(line []byte) (answer, error) {
	var r struct {
		servedWork
		Iters int
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return answer{}, fmt.Errorf("bench: request: %w", err)
	}
	if r.servedWork != s.request || s.run == nil {
		if err := s.begin(r.servedWork); err != nil {
			return answer{}, err
		}
	}
	a := answer{MS: []float64{}}
	for range r.Iters {
		began := time.Now()
		if err := s.run(); err != nil {
			return a, err
		}
		a.MS = append(a.MS, time.Since(began).Seconds()*1e3)
	}
	a.RSS = rss.Peak()
	if s.comm == nil {
		return a, nil
	}
	all, err := dist.Gather(s.comm, a.RSS)
	if err != nil {
		return a, err
	}
	a.RSS = slices.Max(all)
	return a, nil
}

// begin prepares a work.
func (s *server) begin(r servedWork) (err error) {
	s.stop()
	s.request, s.run, s.stop = r, nil, func() {}
	for _, w := range works() {
		switch {
		case w.name != r.Name:
			continue
		case s.comm != nil && w.across != nil:
			s.run, s.stop, err = w.across(s.threads, s.comm, r.Apart)
		case s.comm == nil && w.setup != nil:
			s.run, s.stop, err = w.setup(s.threads)
		}
		if err != nil {
			s.stop = func() {}
			return err
		}
	}
	if s.run == nil {
		return fmt.Errorf("bench: there is no work %q", r.Name)
	}
	for range 5 {
		if err := s.run(); err != nil {
			return err
		}
	}
	return nil
}

// self starts this program as a peer, on so many ranks.
func (o *Options) self(ctx context.Context, threads, ranks int) (*peer, error) {
	if len(o.Self) == 0 {
		return nil, errors.New("the command that is this program is not known, and this work needs a process of its own")
	}
	argv := append(slices.Clone(o.Self), "bench", "serve", fmt.Sprint(threads))
	if ranks > 1 {
		var err error
		if argv, err = o.launch(ranks, argv); err != nil {
			return nil, err
		}
	}
	p, err := start("joule", exec.CommandContext(ctx, argv[0], argv[1:]...))
	if err == nil {
		p.ranks = ranks > 1
	}
	return p, err
}

// starter starts a side with some threads.
type starter struct {
	name  string
	start func(threads int) (*peer, error)
	ask   func(w work) work // the request as this side understands it
}

// starters are Joule and, if wanted, the peers.
func (s *session) starters(ctx context.Context, w work) ([]starter, error) {
	own := func(w work) work { w.request = Request{"name": w.name}; return w }
	out := []starter{{"joule", func(n int) (*peer, error) { return s.o.self(ctx, n, 1) }, own}}
	if !s.o.Peers || w.request == nil {
		return out, nil
	}
	programs, err := s.o.wanted(false)
	if err != nil {
		return nil, err
	}
	for _, p := range programs {
		out = append(out, starter{p.name, func(n int) (*peer, error) {
			cmd, err := s.o.command(ctx, p, n, 1)
			if err != nil {
				return nil, err
			}
			q, err := start(p.name, cmd)
			if err == nil {
				q.free = s.o.capped() && p.free
			}
			return q, err
		}, func(w work) work { return w }})
	}
	return out, nil
}

// skip notes once that a peer could not start.
func (s *session) skip(name string, why error) {
	for _, k := range s.report.Skipped {
		if k.Peer == name {
			return
		}
	}
	fmt.Fprintf(s.log, "%s does not start: %s\n", name, why)
	s.report.Skipped = append(s.report.Skipped, Skip{name, why.Error()})
}

// alone measures a work in a new process for each side, one side after the other: the time of an iteration, and the most memory that the process has had.
func alone(ctx context.Context, s *session, w work) ([]Row, error) {
	sides, err := s.starters(ctx, w)
	if err != nil {
		return nil, err
	}
	times := Row{Work: w.name, Group: w.group, FLOPs: w.flops, Batch: w.batch}
	memory := Row{Work: w.name, Group: w.group, Batch: w.batch, Unit: Megabytes}
	for _, side := range sides {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		p, err := side.start(s.o.Threads)
		if err != nil {
			if side.name == "joule" || ctx.Err() != nil {
				return nil, err
			}
			s.skip(side.name, err)
			continue
		}
		t, m := p.figure(), p.figure()
		for range s.o.Rounds {
			if p.measure(s.o, side.ask(w), t); t.Error != "" {
				break
			}
		}
		a, err := p.ask(side.ask(w), 1)
		p.stop()
		switch {
		case err != nil:
			m.Error = err.Error()
		case a.RSS > 0:
			m.Values = []float64{float64(a.RSS) / 1e6}
		}
		if side.name == "joule" {
			if t.Error != "" {
				return nil, errors.New(t.Error)
			}
			times.Joule, memory.Joule = t, m
			continue
		}
		times.Peers, memory.Peers = append(times.Peers, t), append(memory.Peers, m)
		if t.Error != "" {
			m.Error = notItsWork // said once
		}
	}
	return []Row{times, memory}, nil
}

// threaded measures how much faster a work is with two threads than with one, in processes of their own that take turns.
func threaded(ctx context.Context, s *session, w work) ([]Row, error) {
	sides, err := s.starters(ctx, w)
	if err != nil {
		return nil, err
	}
	row := Row{Work: w.name, Group: w.group, Unit: Speedup, Batch: w.batch}
	for _, side := range sides {
		f := &Figure{Name: side.name}
		if err := s.speedup(ctx, side, w, f); err != nil {
			if side.name == "joule" || ctx.Err() != nil {
				return nil, err
			}
			s.skip(side.name, err)
			continue
		}
		if side.name == "joule" {
			if f.Error != "" {
				return nil, errors.New(f.Error)
			}
			row.Joule = f
		} else {
			row.Peers = append(row.Peers, f)
		}
	}
	return []Row{row}, nil
}

// speedup fills f with the ratio of the medians of each turn; its error says that the side does not start.
func (s *session) speedup(ctx context.Context, side starter, w work, f *Figure) error {
	var ps [2]*peer
	for i := range ps {
		p, err := side.start(i + 1)
		if err != nil {
			return err
		}
		defer p.stop()
		ps[i] = p
	}
	f.Version, f.Free = ps[0].version, ps[0].free
	for range s.o.Rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		var turns [2]Figure
		for i, p := range ps {
			time.Sleep(pause)
			if p.measure(s.o, side.ask(w), &turns[i]); turns[i].Error != "" {
				f.Error = turns[i].Error
				return nil
			}
		}
		if turns[0].ok() && turns[1].ok() {
			f.Values = append(f.Values, turns[0].Median()/turns[1].Median())
		}
	}
	return nil
}
