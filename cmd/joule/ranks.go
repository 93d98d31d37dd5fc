package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dist/mpi"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/rss"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
)

// rankFlags are the settings of commands that mpirun may start on several ranks.
type rankFlags struct {
	shards   int
	deadline time.Duration
	order    string
	check    int
	timeline string
	slow
	scheme *dist.Scheme

	asked  slow // what the user or the run wants, before refit
	kept   bool // the settings are those of the run that goes on, not of the command line
	lost   bool // ranks have died, and the others go on
	pieces int  // into which the batches of the training on its way are cut
}

// slow are the settings for slow links and of how a model is shared out, which a run keeps.
type slow struct {
	Compress string  `json:"compress,omitempty"`
	Local    int     `json:"local_steps,omitempty"`
	Momentum float64 `json:"outer_momentum,omitempty"`
	Rate     float64 `json:"outer_rate,omitempty"`
	Zero     int     `json:"zero,omitempty"`
	Tensor   int     `json:"tensor,omitempty"`
	Pipeline int     `json:"pipeline,omitempty"`
	Cuts     string  `json:"cuts,omitempty"`
	SyncNorm bool    `json:"sync_batch_norm,omitempty"`
}

// noSlow are the settings of a command line that says nothing of them.
var noSlow = slow{Local: 1, Rate: 1}

func (f *rankFlags) add(fs *pflag.FlagSet) {
	fs.IntVar(&f.shards, "shards", 0, "pieces of each batch, which the ranks share: weights depend on it, not on the number of ranks (default: one for each rank)")
	fs.DurationVar(&f.deadline, "deadline", dist.DefaultDeadline, "how long a rank waits for another before it names it and gives up")
	fs.StringVar(&f.order, "sums", "fixed", "fixed: gradients are added in an order that the number of shards decides; any: as the MPI library likes")
	fs.IntVar(&f.check, "check-weights", 500, "compare the ranks' weights every so many steps; -1: never")
	fs.StringVar(&f.Compress, "compress", "", "for slow links: gradients travel as "+dist.Schemes)
	fs.IntVar(&f.Local, "local-steps", 1, "for slow links: steps that each rank takes alone before weights are averaged")
	fs.Float64Var(&f.Momentum, "outer-momentum", 0, "momentum of the averages that --local-steps makes (DiLoCo: 0.9)")
	fs.Float64Var(&f.Rate, "outer-rate", 1, "learning rate of those averages (DiLoCo: 0.7)")
	fs.IntVar(&f.Zero, "zero", 0, "share state out over the ranks (ZeRO): 1: the optimizer's, 2: gradients as well; weights are the same bits")
	fs.BoolVar(&f.SyncNorm, "sync-batch-norm", false, "batch normalisations take their statistics over all ranks, in place of each shard")
	fs.IntVar(&f.Tensor, "tensor", 0, "so many ranks in a row compute the same examples together, each a part of every layer that can be split, of which it has that part of the weights alone; 1: none")
	fs.IntVar(&f.Pipeline, "pipeline", 0, "so many ranks in a row hold consecutive layers each (pipeline stages); each of the --shards is a micro-batch, by default four for each rank; 1: no stages")
	fs.StringVar(&f.Cuts, "cuts", "", "the layers that begin the stages after the first, such as block_2,block_4 (default: so that stages take about as long)")
	fs.StringVar(&f.timeline, "timeline", "", "write what the first steps of each rank did when to this file, for chrome://tracing or Perfetto")
}

// addTensor adds the flag of commands that use a trained model.
func (f *rankFlags) addTensor(fs *pflag.FlagSet) {
	fs.IntVar(&f.Tensor, "tensor", 0, "so many ranks in a row run the model together, each its part of every layer that can be split, of which it reads that part alone from the file")
}

// together lets ranks run a trained model together, as the flag says, and gives what the model is loaded with.
func (f *rankFlags) together(r *ranks) ([]train.Option, error) {
	switch {
	case f.Tensor < 0:
		return nil, usageError{fmt.Errorf("--tensor %d must not be negative", f.Tensor)}
	case f.Tensor <= 1:
		return nil, nil
	case r.size() == 1:
		start := fmt.Sprintf("mpirun --bind-to none -n %d joule %s", f.Tensor, strings.Join(os.Args[1:], " "))
		return nil, usageError{fmt.Errorf("--tensor %d: for several processes, and this is one; start them with: %s (docs/distributed.md), or leave it out", f.Tensor, start)}
	case r.size()%f.Tensor != 0:
		return nil, usageError{fmt.Errorf("--tensor %d does not divide %d ranks: start a multiple of %d", f.Tensor, r.size(), f.Tensor)}
	}
	r.team = f.Tensor
	return []train.Option{train.Fixed(), train.Across(train.Parallel{Comm: r.comm, Tensor: f.Tensor})}, nil
}

func (f *rankFlags) verify() error {
	switch {
	case f.shards < 0:
		return usageError{fmt.Errorf("--shards %d must not be negative", f.shards)}
	case f.deadline <= 0:
		return usageError{fmt.Errorf("--deadline %v must be positive", f.deadline)}
	case f.order != "fixed" && f.order != "any":
		return usageError{fmt.Errorf("--sums %q must be fixed or any", f.order)}
	case f.Tensor < 0:
		return usageError{fmt.Errorf("--tensor %d must not be negative", f.Tensor)}
	case f.Pipeline < 0:
		return usageError{fmt.Errorf("--pipeline %d must not be negative", f.Pipeline)}
	case f.Cuts != "" && f.Pipeline == 0:
		return usageError{errors.New("--cuts names the layers that stages begin with; --pipeline says how many stages there are")}
	case f.Zero < 0 || f.Zero > 2:
		return usageError{fmt.Errorf("--zero %d must be 0, 1 or 2", f.Zero)}
	case f.Local < 1 || f.Momentum < 0 || f.Momentum >= 1 || f.Rate <= 0:
		return usageError{errors.New("--local-steps must be at least 1, --outer-momentum in [0, 1) and --outer-rate positive")}
	}
	if f.Compress != "" {
		var err error
		if f.scheme, err = dist.ParseScheme(f.Compress); err != nil {
			return usageError{fmt.Errorf("--compress: %w", err)}
		}
	}
	return nil
}

// take fills what the command line leaves open from a specification.
func (f *rankFlags) take(s spec.Ranks) error {
	if f.shards == 0 {
		f.shards = s.Shards
	}
	if f.order == "fixed" && s.Sums != "" {
		f.order = s.Sums
	}
	if f.slow == noSlow {
		f.slow = slow{s.Compress, max(1, s.LocalSteps), s.OuterMomentum, cmp.Or(s.OuterRate, 1), s.Zero, s.Tensor, s.Pipeline, strings.Join(s.Cuts, ","), s.SyncBatchNorm}
	}
	return f.verify()
}

// ranks is this process's place in the job that mpirun has started; of a process alone, comm is nil.
type ranks struct {
	comm     *dist.Comm
	deadline time.Duration
	trace    *timeline
	team     int // so many in a row run a model together; 0: each has its own
}

// row is which of how many rows of ranks that run a model together this rank belongs to, and whether it is the first of its row, which has the results.
func (r *ranks) row() (i, of int, first bool) {
	n := max(1, r.team)
	return r.comm.Rank() / n, r.size() / n, r.comm.Rank()%n == 0
}

// join takes part in the job, if a launcher has started this process.
func (f *rankFlags) join() (*ranks, error) {
	if !mpi.Launched() {
		return &ranks{}, nil
	}
	t, err := mpi.Init()
	if err != nil {
		return nil, err
	}
	return &ranks{comm: dist.New(t, f.deadline), deadline: f.deadline}, nil
}

func (r *ranks) size() int {
	if r.comm == nil {
		return 1
	}
	return r.comm.Size()
}

// first reports whether this is the rank that prints and writes files.
func (r *ranks) first() bool { return r.comm == nil || r.comm.Rank() == 0 }

// out is where this rank prints.
func (r *ranks) out(w io.Writer) io.Writer {
	if r.first() {
		return w
	}
	return io.Discard
}

// parallel are the settings for a model.
func (r *ranks) parallel(f *rankFlags) train.Parallel {
	p := train.Parallel{Comm: r.comm, Shards: f.shards, AnyOrder: f.order == "any", Check: f.check, Compress: f.scheme, Local: f.Local, OuterMomentum: f.Momentum, OuterRate: f.Rate, Zero: f.Zero, Tensor: f.Tensor, Pipeline: f.Pipeline, SyncNorm: f.SyncNorm}
	if f.Cuts != "" {
		p.Cuts = strings.Split(f.Cuts, ",")
	}
	if f.timeline != "" {
		r.trace = &timeline{start: time.Now()}
		p.Trace = r.trace.add
	}
	return p
}

// threads is how many threads this rank should use: its share of the machine, unless the user has said how many. The goroutine that adds gradients up needs a thread of its own.
func (r *ranks) threads(asked int, warn io.Writer) int {
	if r.size() == 1 {
		return asked
	}
	may := par.DefaultThreads()
	local := max(1, mpi.LocalRanks())
	share := max(1, onlineCPUs()/local)
	if asked == 0 {
		asked = min(may, share)
		if r.first() && runtime.NumCPU() < share {
			fmt.Fprintf(warn, "joule: each rank may use only %d of its share of %d CPUs: start with mpirun --bind-to none (Open MPI also: --map-by slot:PE=%d)\n", runtime.NumCPU(), share, share)
		}
	}
	runtime.GOMAXPROCS(asked + 1) // more of them get in each other's way
	return asked
}

// inRows says where the ranks of a machine are not in a row, which sends more between machines.
func (r *ranks) inRows(warn io.Writer) error {
	if r.size() == 1 {
		return nil
	}
	machines, err := r.comm.Machines()
	if err == nil && r.first() && !slices.IsSorted(machines) {
		fmt.Fprintln(warn, "joule: the ranks of a machine are not in a row: sums send more between machines than they need to; mpirun --map-by slot and srun --distribution=block put them in rows")
	}
	return err
}

// onlineCPUs is the number of the machine's processors, whether or not this process may use them.
func onlineCPUs() int {
	text, err := os.ReadFile("/sys/devices/system/cpu/online") // such as 0-3,8
	if err != nil {
		return runtime.NumCPU()
	}
	n := 0
	for _, r := range strings.Split(strings.TrimSpace(string(text)), ",") {
		a, b, isRange := strings.Cut(r, "-")
		lo, err := strconv.Atoi(a)
		hi := lo
		if isRange && err == nil {
			hi, err = strconv.Atoi(b)
		}
		if err != nil || hi < lo {
			return runtime.NumCPU()
		}
		n += hi - lo + 1
	}
	return n
}

// recover joins the ranks that are left when err says that one has died, where the MPI can; else it reports false.
func (r *ranks) recover(err error, warn io.Writer) bool {
	if r.comm == nil || !errors.Is(err, dist.ErrLost) {
		return false
	}
	s, ok := r.comm.Transport().(dist.Shrinker)
	if !ok {
		return false
	}
	before := r.size()
	t, e := s.Shrink()
	if e != nil {
		return false
	}
	r.comm = dist.New(t, r.deadline)
	if r.first() {
		fmt.Fprintf(warn, "joule: %d of %d ranks are gone; %d go on from the last checkpoint\n", before-r.size(), before, r.size())
	}
	return true
}

// leave ends this rank's part: in order, or, after an error that the other ranks may not have met, for all of them.
func (r *ranks) leave(err error) error {
	if r.comm == nil {
		return err
	}
	var usage usageError
	if err == nil || errors.Is(err, train.ErrInterrupted) || errors.As(err, &usage) {
		if e := r.comm.Close(); err == nil {
			err = e
		}
		if !r.first() {
			return nil // rank 0 says it, and a launcher may end the job at the first exit code that is not 0
		}
		return err
	}
	if r.size() == 1 {
		_ = r.comm.Close()
		return err
	}
	fmt.Fprintf(os.Stderr, "joule: rank %d: %v\n", r.comm.Rank(), err)
	time.Sleep(300 * time.Millisecond) // ranks with an error of their own say it too
	r.comm.Abort(exitFailure)
	return silent{err}
}

// silent is an error that has been printed, or that another rank prints.
type silent struct{ error }

func (s silent) Unwrap() error { return s.error }

// meter is the machine's counter of joules. It counts for all ranks of the machine: the first of them reads it, the others count nothing.
func (r *ranks) meter(f *meterFlag) (energy.Meter, error) {
	m, _, err := f.open()
	if m != nil && r.size() > 1 && mpi.LocalRank() > 0 {
		return counted{m}, err
	}
	return m, err
}

// counted is a meter that another rank reads.
type counted struct{ energy.Meter }

func (counted) Joules() (float64, error) { return 0, nil }

// resumed is what rank 0 tells the others about the run to go on with.
type resumed struct {
	ID, Spec, Path string
	Seed           uint64
	Step, Epoch    int64
	Sections       map[string]json.RawMessage
	Done           bool // it has come to its end, with these results
	Results        runs.Values
}

func (s *resumed) state(tensors *checkpoint.State) *checkpoint.State {
	out := &checkpoint.State{Step: s.Step, Epoch: s.Epoch, Sections: s.Sections}
	if tensors != nil {
		out.Tensors = tensors.Tensors
	}
	return out
}

// share gives every rank what rank 0 has.
func share[T any](r *ranks, v T, err error) (T, error) {
	if r.size() == 1 || err != nil {
		return v, err
	}
	return dist.Share(r.comm, 0, v)
}

// writes reports whether this rank takes part in writing one text: the first rank does, or the first row of those that run a model together.
func (r *ranks) writes() bool {
	if r.comm == nil {
		return true
	}
	i, _, leads := r.row()
	return i == 0 && (leads || r.team > 1)
}

// inOrder lets every rank do its part of n things, which lie in a row. What they write comes from rank 0, in order.
func (r *ranks) inOrder(out io.Writer, n int, do func(w io.Writer, lo, hi int) error) error {
	if r.size() == 1 {
		return do(out, 0, n)
	}
	var own bytes.Buffer
	row, rows, leads := r.row()
	lo, hi := dist.Part(n, row, rows)
	if err := do(&own, lo, hi); err != nil {
		return err
	}
	if !leads {
		own.Reset()
	}
	all, err := r.comm.GatherTexts(own.Bytes())
	if err != nil || !r.first() {
		return err
	}
	for _, text := range all {
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
	return nil
}

// parted is the results of n things, of which every rank finds its part.
func parted[T any](r *ranks, n int, part func(lo, hi int) ([]T, error)) ([]T, error) {
	if r.size() == 1 {
		return part(0, n)
	}
	var own []T
	row, rows, leads := r.row()
	if lo, hi := dist.Part(n, row, rows); lo < hi {
		var err error
		if own, err = part(lo, hi); err != nil {
			return nil, err
		}
	}
	if !leads {
		own = nil
	}
	all, err := dist.Gather(r.comm, own)
	if err != nil {
		return nil, err
	}
	return slices.Concat(all...), nil
}

// bill is the account of all ranks together.
func (r *ranks) bill(l *energy.Ledger) (*energy.Ledger, error) {
	if r.size() == 1 {
		return l, nil
	}
	return billOf(r.comm, l)
}

// billRow is the account of this rank's row.
func (r *ranks) billRow(l *energy.Ledger) (*energy.Ledger, error) {
	if r.team <= 1 {
		return l, nil
	}
	row, _, _ := r.row()
	members := make([]int, r.team)
	for i := range members {
		members[i] = row*r.team + i
	}
	c, err := r.comm.Sub(members, dist.Channels-1)
	if err != nil {
		return nil, err
	}
	return billOf(c, l)
}

func billOf(c *dist.Comm, l *energy.Ledger) (*energy.Ledger, error) {
	all, err := dist.Gather(c, l)
	if err != nil {
		return nil, err
	}
	for _, o := range all[1:] {
		all[0].Merge(o)
	}
	return all[0], nil
}

// rankReport is one rank's part of the account.
type rankReport struct {
	Rank int    `json:"rank"`
	Host string `json:"host"`
	train.Exchange
	Seconds  float64       `json:"seconds"`
	Peak     int64         `json:"peak_rss_bytes"`
	Params   int           `json:"parameter_bytes"` // of the parameters that the rank has
	State    int           `json:"optimizer_bytes"` // of the optimizer's state and accumulated gradients
	FLOPs    int64         `json:"flops"`
	Examples int64         `json:"examples"`
	Joules   energy.Joules `json:"energy"`
}

// gather adds up all ranks' ledgers and gives their reports; every rank must call it. The time of the sum is that of all ranks together.
func (j *job) gather(l *energy.Ledger) (*energy.Ledger, []rankReport, error) {
	if j.ranks.size() == 1 {
		return l, nil, nil
	}
	host, _ := os.Hostname()
	own := struct {
		Ledger *energy.Ledger
		Report rankReport
	}{l, rankReport{Rank: j.ranks.comm.Rank(), Host: host, Exchange: j.model.Exchange(), Seconds: l.Seconds, Peak: rss.Peak(), Params: j.model.ParameterBytes(), State: j.model.OptimizerBytes(), FLOPs: l.Cost.FLOPs, Examples: j.shown.examples, Joules: l.Joules}}
	all, err := dist.Gather(j.ranks.comm, own)
	if err != nil {
		return nil, nil, err
	}
	var reports []rankReport
	sum := all[0].Ledger
	for i, r := range all {
		reports = append(reports, r.Report)
		if i > 0 {
			r.Ledger.Examples = 0 // every rank counts the whole batches
			sum.Merge(r.Ledger)
		}
	}
	sum.Cores = l.Cores * len(all)
	return sum, reports, nil
}

// rankTable prints the ranks' reports; what went to other machines where there are any.
func rankTable(w io.Writer, rs []rankReport) {
	var total rankReport
	var time, waiting float64
	for _, r := range rs {
		total.Sent += r.Sent
		total.Across += r.Across
		total.Messages += r.Messages
		total.FLOPs += r.FLOPs
		total.Joules = total.Joules.Add(r.Joules)
		time += r.Seconds
		waiting += r.Waiting
	}
	across := func(bytes int64) string {
		if total.Across == 0 {
			return ""
		}
		return fmt.Sprintf(" %11s", energy.SI(float64(bytes), "B"))
	}
	head := ""
	if total.Across > 0 {
		head = fmt.Sprintf(" %11s", "to machines")
	}
	fmt.Fprintf(w, "%-5s %-16s %9s %9s %9s %10s%s %9s %11s %11s %10s\n", "rank", "host", "time", "summing", "waiting", "sent", head, "messages", "arithmetic", "energy", "memory")
	for _, r := range rs {
		fmt.Fprintf(w, "%-5d %-16s %9s %9s %9s %10s%s %9d %11s %11s %10s\n", r.Rank, r.Host, energy.SI(r.Seconds, "s"), energy.SI(r.Summing, "s"), energy.SI(r.Waiting, "s"), energy.SI(float64(r.Sent), "B"), across(r.Across), r.Messages, energy.SI(float64(r.FLOPs), "FLOP"), energy.SI(r.Joules.Value, "J"), energy.SI(float64(r.Peak), "B"))
	}
	fmt.Fprintf(w, "%-5s %-16s %9s %9s %9s %10s%s %9d %11s %11s\n", "all", "", "", "", energy.SI(waiting, "s"), energy.SI(float64(total.Sent), "B"), across(total.Across), total.Messages, energy.SI(float64(total.FLOPs), "FLOP"), energy.SI(total.Joules.Value, "J"))
	if time > 0 {
		fmt.Fprintf(w, "%.1f%% of the ranks' time was lost to waiting for each other\n", 100*waiting/time)
	}
}
