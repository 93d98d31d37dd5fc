package bench

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dist/mpi"
	"github.com/jouleml/joule/dist/mpi/mpirun"
	"github.com/jouleml/joule/train"
)

// onRanks lists train steps that several ranks share: of the main network, and of a Transformer of the shape of char-gpt (0.8 million parameters; without dropout).
func onRanks() []work {
	var out []work
	for _, n := range []int{2, 4} {
		out = append(out,
			acrossRanks(n, func(on ...train.Option) work { return cnn("train_cnn", 128, on...) }),
			acrossRanks(n, func(on ...train.Option) work { return gpt(4, 128, 4, 128, 32, 96, on...) }))
	}
	return out
}

// acrossRanks is a work whose batch n ranks share.
func acrossRanks(n int, of func(on ...train.Option) work) work {
	w := of()
	w.name, w.group, w.flops, w.batch, w.ranks, w.measure = fmt.Sprintf("ranks %d, %s", n, w.name), "ranks", 0, 0, n, ranked
	w.across = func(threads int, c *dist.Comm, apart bool) (func() error, func(), error) {
		p := train.Parallel{Comm: c, Check: -1}
		if apart {
			p.Local = math.MaxInt
		}
		return of(train.Across(p)).setup(threads)
	}
	return w
}

// launch is the command that starts a program on ranks.
func (o *Options) launch(ranks int, argv []string) ([]string, error) {
	run := o.Launcher
	if run == "" {
		run = "mpirun"
	}
	_, flags, err := mpirun.Flags(run)
	if err != nil {
		return nil, fmt.Errorf("the ranks cannot be started (--launcher names another program): %w", err)
	}
	return append(append(append([]string{run}, flags...), "-n", fmt.Sprint(ranks)), argv...), nil
}

// ranks joins the job: rank 0 speaks for all, and tells the others what is asked.
func (s *server) ranks(in io.Reader, out io.Writer) error {
	t, err := mpi.Init()
	if err != nil {
		return err
	}
	s.comm = dist.New(t, 0)
	if s.comm.Rank() == 0 {
		err = s.answer(in, out, s.comm.Name(), func(line []byte) error {
			_, err := s.comm.BroadcastText(0, line)
			return err
		})
		if err == nil {
			_, err = s.comm.BroadcastText(0, nil) // the end
		}
	} else {
		for err == nil {
			var line []byte
			if line, err = s.comm.BroadcastText(0, nil); err != nil || len(line) == 0 {
				break
			}
			_, err = s.serve(line)
		}
	}
	if err != nil {
		if s.comm.Rank() > 0 {
			fmt.Fprintln(os.Stderr, "joule bench:", err)
		}
		s.comm.Abort(1)
		return err
	}
	return s.comm.Close()
}

// ranked measures a step on several ranks, beside peers on as many processes: its time, the most memory of a rank, and beside Joule itself: in one process of as many threads, and on ranks that send
// no gradients. Sides are processes of their own, which take turns; the time is rank 0's.
func ranked(ctx context.Context, s *session, w work) ([]Row, error) {
	threads := max(1, s.o.Threads/w.ranks)
	type contender struct {
		name  string
		start func() (*peer, error)
		ask   work
		row   int // of what is compared
	}
	request := func(r Request) work { w := w; w.request = r; return w }
	own := Request{"name": w.name}
	ranks := func() (*peer, error) { return s.o.self(ctx, threads, w.ranks) }
	sides := []contender{{"joule", ranks, request(own), 0}}
	rows := []Row{{Work: w.name, Group: w.group}, {Work: w.name + ": against ranks that send no gradients", Group: w.group + ", alone"}}
	sides = append(sides, contender{"joule without sums", ranks, request(Request{"name": w.name, "apart": true}), 1})
	if threads*w.ranks == s.o.Threads {
		rows = append(rows, Row{Work: fmt.Sprintf("%s: against one process of %d threads", w.name, s.o.Threads), Group: w.group + ", alone"})
		sides = append(sides, contender{"joule in one process", func() (*peer, error) { return s.o.self(ctx, s.o.Threads, 1) }, request(own), 2})
	}
	memory := Row{Work: w.name, Group: w.group, Unit: Megabytes}
	if s.o.Peers {
		programs, err := s.o.wanted(true)
		if err != nil {
			return nil, err
		}
		for _, p := range programs {
			sides = append(sides, contender{p.name, func() (*peer, error) {
				cmd, err := s.o.command(ctx, p, threads, w.ranks)
				if err != nil {
					return nil, err
				}
				return start(p.name, cmd)
			}, w, 0})
		}
	}
	var peers []*peer
	figs := make([]*Figure, len(sides))
	peak := make([]int64, len(sides))
	for i, c := range sides {
		p, err := c.start()
		if err != nil {
			if c.row > 0 || i == 0 || ctx.Err() != nil {
				return nil, err
			}
			s.skip(c.name, err)
			peers = append(peers, nil)
			continue
		}
		defer p.stop()
		peers = append(peers, p)
		figs[i] = &Figure{Name: c.name, Version: p.version}
		if i == 0 {
			s.report.MPI = p.version
		}
		if _, ours := c.ask.request["name"]; ours {
			figs[i].Version = ""
		}
		if _, err := p.ask(c.ask, 1); err != nil { // programs are compiled, and memory is got, outside the turns
			figs[i].Error = err.Error()
		}
	}
	for range s.o.Rounds {
		for i, p := range peers {
			if p == nil || figs[i].Error != "" {
				continue
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			time.Sleep(pause)
			p.measure(s.o, sides[i].ask, figs[i])
		}
	}
	for i, p := range peers {
		if p == nil || figs[i].Error != "" {
			continue
		}
		a, err := p.ask(sides[i].ask, 1)
		if err != nil {
			figs[i].Error = err.Error()
			continue
		}
		peak[i] = a.RSS
	}
	for i, c := range sides {
		switch f := figs[i]; {
		case f == nil:
		case f.Error != "" && (i == 0 || c.row > 0):
			return nil, fmt.Errorf("%s: %s", c.name, f.Error)
		case i == 0:
			for k := range rows {
				rows[k].Joule = f
			}
			memory.Joule = &Figure{Name: f.Name, Version: f.Version, Values: []float64{float64(peak[i]) / 1e6}}
		default:
			rows[c.row].Peers = append(rows[c.row].Peers, f)
			if c.row == 0 {
				m := &Figure{Name: f.Name, Version: f.Version, Values: []float64{float64(peak[i]) / 1e6}}
				if f.Error != "" {
					m.Error, m.Values = notItsWork, nil // said once
				}
				memory.Peers = append(memory.Peers, m)
			}
		}
	}
	return append(rows, memory), nil
}
