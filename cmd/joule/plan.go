package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dist/plan"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/rss"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// planFlags are the settings of joule plan.
type planFlags struct {
	batch, threads, machine, cores, steps int
	ranks                                 []int
	latency, localLatency                 time.Duration
	bandwidth, localBandwidth             float64
	least                                 float64
	pipeline, tensor, zero, shards        int
	memory                                float64
	weak, ring, all, json                 bool
	rf                                    rankFlags
}

func planCmd() *cobra.Command {
	f := planFlags{rf: rankFlags{deadline: dist.DefaultDeadline}}
	c := &cobra.Command{
		Use:   "plan [preset | spec.yaml]",
		Short: "Predict what a training takes on 1 to 10,000 ranks: time, energy, how many pay",
		Long: "Plan measures a few steps on this machine, at several sizes of batches, and predicts the step on many ranks from the links' latency and bandwidth (docs/distributed.md has the " +
			"formulas): for each number of ranks with the strategy that is quickest and whose memory a rank has, or with the one that is asked for. Started by mpirun -n 2 it measures the link between the two ranks; otherwise the links are what the flags say.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: spec.Presets(),
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.verify(); err != nil {
				return err
			}
			r, err := f.rf.join()
			if err != nil {
				return err
			}
			return r.leave(f.run(c.Context(), r, first(args, "mnist"), r.out(c.OutOrStdout())))
		},
	}
	fs := c.Flags()
	fs.IntVar(&f.batch, "batch", 0, "examples in a step (default: as the specification says)")
	fs.IntSliceVar(&f.ranks, "ranks", []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 10000}, "numbers of ranks to predict")
	fs.IntVar(&f.threads, "threads", 1, "threads of a rank")
	fs.IntVar(&f.machine, "per-machine", 1, "ranks on a machine, which add up among themselves before machines do")
	fs.IntVar(&f.cores, "cores", 0, "cores of a machine (default: this one's)")
	fs.DurationVar(&f.latency, "latency", 30*time.Microsecond, "latency of the link between machines")
	fs.Float64Var(&f.bandwidth, "bandwidth", 1.25, "bandwidth of that link, in GB/s (10 Gbit/s Ethernet: 1.25)")
	fs.DurationVar(&f.localLatency, "local-latency", 2*time.Microsecond, "latency between ranks of one machine")
	fs.Float64Var(&f.localBandwidth, "local-bandwidth", 4, "bandwidth between ranks of one machine, in GB/s")
	fs.Float64Var(&f.least, "efficiency", 0.8, "the share of its speed that a rank must keep to be worth while")
	fs.BoolVar(&f.weak, "weak", false, "the batch is that of each rank, not of all together")
	fs.BoolVar(&f.ring, "ring", false, "sums go around a ring, as those of other libraries do (NCCL, Gloo), and not as Joule's")
	fs.IntVar(&f.steps, "steps", 20, "steps to measure at each size")
	fs.IntVar(&f.pipeline, "pipeline", 0, "predict so many pipeline stages (default: those that suit)")
	fs.IntVar(&f.tensor, "tensor", 0, "predict layers that are split over so many ranks (default: those that suit)")
	fs.IntVar(&f.zero, "zero", 0, "predict state shared out over the ranks (ZeRO): 1: the optimizer's, 2: gradients as well")
	fs.IntVar(&f.shards, "shards", 0, "micro-batches of a step in a pipeline (default: four for each rank)")
	fs.Float64Var(&f.memory, "memory", 0, "memory that a rank has, in GB: strategies that need more are left out (default: any)")
	fs.BoolVar(&f.all, "all", false, "print every strategy for every number of ranks")
	fs.BoolVar(&f.json, "json", false, "print JSON")
	return c
}

func (f *planFlags) verify() error {
	switch {
	case f.pipeline < 0 || f.pipeline == 1 || f.tensor < 0 || f.tensor == 1:
		return usageError{errors.New("--pipeline and --tensor must be at least 2")}
	case f.zero < 0 || f.zero > 2:
		return usageError{fmt.Errorf("--zero %d must be 1 or 2", f.zero)}
	case f.pipeline > 0 && f.tensor+f.zero > 0:
		return usageError{errors.New("--pipeline goes together with neither --tensor nor --zero: one at a time, or --all")}
	case f.shards < 0 || f.memory < 0:
		return usageError{errors.New("--shards and --memory must not be negative")}
	case f.batch < 0 || f.threads < 1 || f.machine < 1 || f.cores < 0 || f.steps < 1:
		return usageError{errors.New("--batch, --threads, --per-machine, --cores and --steps must be positive")}
	case !(f.bandwidth > 0) || !(f.localBandwidth > 0) || f.latency < 0 || f.localLatency < 0:
		return usageError{errors.New("bandwidths must be positive and latencies not negative")}
	case f.least <= 0 || f.least > 1:
		return usageError{fmt.Errorf("--efficiency %g is not in (0, 1]", f.least)}
	case len(f.ranks) == 0 || slices.Min(f.ranks) < 1:
		return usageError{errors.New("--ranks must be numbers of at least 1")}
	}
	return nil
}

func (f *planFlags) run(ctx context.Context, r *ranks, ref string, w io.Writer) error {
	s, err := spec.Open(ref)
	if err != nil {
		return err
	}
	if f.batch == 0 {
		f.batch = s.Fit.BatchSize
	}
	set, err := openData(s, runs.DefaultRoot)
	if err != nil {
		return err
	}
	if f.batch > set.Train.Len() {
		return usageError{fmt.Errorf("--batch %d: there are only %d examples", f.batch, set.Train.Len())}
	}
	p := &plan.Job{
		Local: plan.Link{Latency: f.localLatency.Seconds(), Bandwidth: f.localBandwidth * 1e9}, Network: plan.Link{Latency: f.latency.Seconds(), Bandwidth: f.bandwidth * 1e9},
		Machine: f.machine, Threads: f.threads, Cores: f.cores, Ring: f.ring,
	}
	if p.Cores == 0 {
		p.Cores = onlineCPUs()
	}
	links := "links as the flags say, not measured"
	if r.size() > 1 {
		if links, err = measureLink(r.comm, p); err != nil {
			return err
		}
	}
	p.Base, p.Shards = float64(rss.Peak()), f.shards
	p.Rest = set.Train.Len() % f.batch
	for _, b := range []int{f.batch, 128} { // the data of validation after each epoch, and of the test
		if n := set.Test.Len(); n > 0 {
			p.Evaluate = append(p.Evaluate, min(b, n))
			if rest := n % b; n > b && rest > 0 {
				p.Evaluate = append(p.Evaluate, rest)
			}
		}
	}
	slices.Sort(p.Evaluate)
	p.Evaluate = slices.Compact(p.Evaluate)
	var source energy.Source
	if r.first() {
		m, err := s.Compile(set.Spec(), 1, train.Threads(f.threads))
		if err != nil {
			return err
		}
		if source, err = f.measure(ctx, m, set.Train, p); err != nil {
			return err
		}
		if err := f.outline(m, p); err != nil {
			return err
		}
	}
	if r.size() > 1 {
		if err := r.comm.Barrier(); err != nil || !r.first() {
			return err
		}
	}
	if err := p.Check(); err != nil {
		return err
	}
	rows, all, err := f.predict(p)
	if err != nil {
		return err
	}
	if f.json {
		return json.NewEncoder(w).Encode(map[string]any{"job": p, "rows": rows, "all": all, "links": links, "energy_source": source.String(), "advice": f.advice(p, rows)})
	}
	f.print(w, s.Name, p, rows, all, links, source)
	return nil
}

// planStages is the greatest number of pipeline stages, and of ranks that split layers, that is considered unasked.
const planStages = 16

// outline finds what ranks would have of the model with each strategy that is considered.
func (f *planFlags) outline(m *train.Model, p *plan.Job) error {
	var sizes []int // that have been measured
	for _, k := range p.Steps {
		sizes = append(sizes, k.Batch)
	}
	whole, err := m.Outline(1, sizes...)
	if err != nil {
		return err
	}
	p.Whole, p.Stages, p.Split = whole[0], map[int][]plan.Part{}, map[int]plan.Part{}
	if f.zero > 0 && f.tensor == 0 {
		return nil
	}
	for k := 2; k <= max(planStages, f.pipeline, f.tensor); k++ {
		if unasked := k&(k-1) == 0 && k <= slices.Max(f.ranks) && f.pipeline == 0 && f.tensor == 0; f.pipeline == k || unasked {
			stages, err := m.Outline(k, sizes...)
			switch {
			case err == nil:
				p.Stages[k] = stages
			case f.pipeline == k:
				return err
			}
		}
		if unasked := k&(k-1) == 0 && k <= slices.Max(f.ranks) && f.pipeline == 0 && f.tensor == 0; f.tensor == k || unasked {
			part, err := m.OutlineSplit(k, sizes...)
			switch {
			case err == nil:
				p.Split[k] = part
			case f.tensor == k:
				return err
			}
		}
	}
	return nil
}

// predict gives, for each number of ranks, the row of the strategy that is asked for or suits best, and the rows of all that are possible.
func (f *planFlags) predict(p *plan.Job) (rows, all []plan.Row, err error) {
	want := plan.Strategy{Zero: f.zero, Tensor: f.tensor, Pipeline: f.pipeline}
	for _, n := range f.ranks {
		var own []plan.Row
		for _, s := range p.Strategies(n) {
			if want != (plan.Strategy{}) && s != want {
				continue
			}
			if e := p.Can(s, n, f.batch, f.weak); e == nil {
				own = append(own, p.PredictAs(s, n, f.batch, f.weak))
			}
		}
		all = append(all, own...)
		if best, ok := plan.Quickest(own, f.memory*1e9); ok {
			rows = append(rows, best)
		}
	}
	switch {
	case len(all) == 0 && want.Pipeline+want.Tensor > 0:
		return nil, nil, usageError{fmt.Errorf("%v: none of the numbers of ranks (--ranks) is a multiple of %d that leaves each group an example of the batch of %d: use --weak, or larger batches", want, max(want.Pipeline, want.Tensor), f.batch)}
	case len(all) == 0:
		return nil, nil, usageError{fmt.Errorf("a batch of %d examples is too small for any of the numbers of ranks: use --weak, or larger batches", f.batch)}
	case len(rows) == 0:
		least := slices.MinFunc(all, func(a, b plan.Row) int { return cmp.Compare(a.Memory, b.Memory) })
		return nil, nil, fmt.Errorf("nothing fits into %s a rank: the least is %s, %v on %d ranks; smaller batches, more ranks or fit: {recompute: true} need less",
			energy.SI(f.memory*1e9, "B"), energy.SI(least.Memory, "B"), least.Strategy, least.Ranks)
	}
	return rows, all, nil
}

// advice is what the rows mean, memory included.
func (f *planFlags) advice(p *plan.Job, rows []plan.Row) []string {
	out := plan.Advice(rows, f.least)
	if f.memory == 0 {
		return out
	}
	if whole := p.Predict(1, f.batch, f.weak).Memory; whole > f.memory*1e9 {
		out = append(out, fmt.Sprintf("one rank would need %s of memory; the fewest that have room are %d (%v)", energy.SI(whole, "B"), rows[0].Ranks, rows[0].Strategy))
	}
	return out
}

func (f *planFlags) print(w io.Writer, name string, p *plan.Job, rows, all []plan.Row, links string, source energy.Source) {
	total := 0.0
	for _, b := range p.Buckets {
		total += b
	}
	of := "batch"
	if f.weak {
		of = "batch of a rank"
	}
	fmt.Fprintf(w, "%s, %s %d, %s of gradients in %d buckets, %s\n", name, of, f.batch, energy.SI(total, "B"), len(p.Buckets), links)
	for _, s := range p.Steps {
		fmt.Fprintf(w, "measured: %s a step of %d examples\n", energy.SI(s.Seconds, "s"), s.Batch)
	}
	shown := rows
	if f.all {
		shown = all
	}
	several := slices.ContainsFunc(shown, func(r plan.Row) bool { return r.Across > 0 })
	network := func(text string) string {
		if !several {
			return ""
		}
		return fmt.Sprintf(" %10s", text)
	}
	fmt.Fprintf(w, "\n%6s %-17s %6s %10s %10s %10s %10s %10s %12s %10s %12s %10s%s\n", "ranks", "strategy", "each", "compute", "sums", "exposed", "bubble", "step", "examples/s", "efficiency", "J/example", "memory", network("network"))
	for _, r := range shown {
		fmt.Fprintf(w, "%6d %-17v %6d %10s %10s %10s %10s %10s %12.0f %9.0f%% %12s %10s%s\n", r.Ranks, r.Strategy, r.Batch, energy.SI(r.Compute, "s"), energy.SI(r.Exchange, "s"), energy.SI(r.Exposed, "s"), energy.SI(r.Bubble, "s"),
			energy.SI(r.Step, "s"), r.Examples, 100*r.Efficiency, energy.SI(r.Joules, "J"), energy.SI(r.Memory, "B"), network(energy.SI(r.Across*float64(min(r.Ranks, p.Machine)), "B")))
	}
	fmt.Fprintf(w, "\nA prediction. Energy: %v at one rank; a rank that waits is taken to need as much, since it polls. Memory: of the rank that holds most.\n", source)
	switch {
	case several && p.Machine > 1 && p.Ring:
		fmt.Fprintf(w, "Network: what a machine of %d ranks sends to others in a step.\n", p.Machine)
	case several && p.Machine > 1:
		fmt.Fprintf(w, "Network: what a machine of %d ranks, which add up among themselves first, sends to others in a step.\n", p.Machine)
	case several:
		fmt.Fprintln(w, "Network: what a rank, each of which has a machine of its own (--per-machine), sends to others in a step.")
	}
	for _, k := range slices.Sorted(maps.Keys(p.Stages)) {
		if slices.ContainsFunc(shown, func(r plan.Row) bool { return r.Strategy.Pipeline == k }) {
			fmt.Fprintf(w, "%d stages:", k)
			for i, s := range p.Stages[k] {
				fmt.Fprintf(w, "%s %s (%.0f%% of the time)", map[bool]string{true: ",", false: ""}[i > 0], s.First, 100*s.Shares[0].Of)
			}
			fmt.Fprintln(w)
		}
	}
	for _, a := range f.advice(p, rows) {
		fmt.Fprintln(w, a)
	}
}

// measure times steps at the batch and at halves of it, and what of a step is backward pass and update.
func (f *planFlags) measure(ctx context.Context, m *train.Model, ds data.Dataset, p *plan.Job) (energy.Source, error) {
	var source energy.Source
	for b, points := f.batch, 0; b >= 1 && points < 6; b, points = b/2, points+1 {
		l, err := data.NewLoader(ds, data.LoaderConfig{Batch: b, Shuffle: true})
		if err != nil {
			return source, err
		}
		meter, _ := energy.Open()
		var account *train.Account
		var times []float64
		for i := range f.steps + 3 {
			if i == 3 && points == 0 { // the first compile and warm up; another account would forget how long layers took in greater batches
				if account, err = m.StartAccount(meter); err != nil {
					break
				}
			}
			batch, e := l.Next(ctx)
			if err = e; err != nil {
				break
			}
			start := time.Now()
			if _, err = m.Step(batch.X, batch.Y, 1e-4); err != nil {
				break
			}
			if i >= 3 {
				times = append(times, time.Since(start).Seconds())
			}
		}
		l.Close()
		if err != nil {
			return source, err
		}
		slices.Sort(times)
		p.Steps = append(p.Steps, plan.Point{Batch: b, Seconds: times[len(times)/2]})
		if points > 0 {
			continue
		}
		ledger, err := account.Ledger()
		if err != nil {
			return source, err
		}
		phases, all := map[string]float64{}, 0.0
		for _, line := range ledger.Lines {
			if line.Phase != "idle" {
				phases[line.Phase] += line.Seconds
				all += line.Seconds
			}
		}
		p.Backward, p.Update = phases["backward"]/all, phases["update"]/all
		p.Watts, source = ledger.Joules.Value/ledger.Seconds, ledger.Joules.Source
	}
	sizes, err := m.Buckets()
	for _, s := range sizes {
		p.Buckets = append(p.Buckets, float64(s))
	}
	return source, err
}

// measureLink times messages between ranks 0 and 1: small ones there and back for the latency, great ones for the bandwidth.
func measureLink(c *dist.Comm, p *plan.Job) (string, error) {
	machines, err := c.Machines()
	if err != nil {
		return "", err
	}
	trip := func(bytes, times int) (float64, error) {
		buf := make([]byte, bytes)
		best := 0.0
		for i := range times {
			start := time.Now()
			var err error
			switch c.Rank() {
			case 0:
				if err = c.Send(1, 0, buf); err == nil {
					err = c.Recv(1, 0, buf)
				}
			case 1:
				if err = c.Recv(0, 0, buf); err == nil {
					err = c.Send(0, 0, buf)
				}
			}
			if err != nil {
				return 0, err
			}
			if t := time.Since(start).Seconds() / 2; i == 0 || t < best {
				best = t
			}
		}
		return best, nil
	}
	if err := c.Barrier(); err != nil {
		return "", err
	}
	small, err := trip(8, 500)
	if err != nil {
		return "", err
	}
	const great = 4 << 20
	large, err := trip(great, 30)
	if err != nil {
		return "", err
	}
	l := plan.Link{Latency: small, Bandwidth: great / max(large-small, 1e-9)}
	where := "between the machines of ranks 0 and 1"
	if machines[0] == machines[1] {
		where = "within the machine"
		p.Local = l
	} else {
		p.Network = l
	}
	return fmt.Sprintf("link %s measured: %s, %s", where, energy.SI(l.Latency, "s"), energy.SI(l.Bandwidth, "B/s")), c.Barrier()
}
