// Package plan predicts what a training costs on many ranks, from single steps measured on one rank and a link's latency and bandwidth.
//
// A message of m bytes takes α + m·β seconds, with latency α and β the inverse of the bandwidth (Hockney, "The communication challenge for MPP", 1994). A sum over n ranks is then, with
// the algorithms of package dist (Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", 2005):
//
//   - n a power of two, recursive halving and doubling: 2·Σ_s (α + B/2^(s+1)·β) over the log2(n) stages s;
//   - other n up to 16, every rank with every other: 2·((n-1)·α + (n-1)/n·B·β);
//   - greater ones, in blocks of falling powers of two (Rabenseifner & Träff 2004): that of the greatest block, and for each pair of blocks of s and s' < s ranks 2·(s/s'·α + B/s'·β).
//
// On M machines of r ranks, in a row, the ranks of a machine add up first: a sum of B bytes over r of them on the machine's link (in common memory that is an upper bound), and r sums of B/r over the M machines at a time, which
// share the network. A machine sends 2·(M-1)/M·B to others. Where its ranks make no node of the tree but k of them it sends (k+1)·(M-1)/M·B, each with every other.
//
// A pipeline of P stages and M micro-batches is played through, one forward, one backward (strategy.go): stages of equal time without messages wait for (P-1)/(M+P-1) of a step. Of layers that are split
// over T ranks, the sums within forward and backward pass are all waited for. Memory of a rank is its values, its gradients and the programs that a training compiles.
//
// Ring (2·(n-1)·α + 2·(n-1)/n·B·β) and recursive doubling of whole vectors (log2(n)·(α + B·β)) are there for comparison.
//
// What it leaves out: other traffic on the links, ranks that are slower than others, the time to add (memory is far quicker than links), reading data.
package plan

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sort"

	"github.com/jouleml/joule/dist"
)

// Link carries messages.
type Link struct {
	Latency   float64 // seconds
	Bandwidth float64 // bytes a second, each way
}

// Time of a message of so many bytes.
func (l Link) Time(bytes float64) float64 { return l.Latency + bytes/l.Bandwidth }

// Point is a measured step on one rank.
type Point struct {
	Batch   int     // examples
	Seconds float64 // of the whole step
}

// Job is what is to be shared out.
type Job struct {
	Steps    []Point   // measured on one rank; at least one
	Buckets  []float64 // bytes of gradients that travel together, in the order in which they become ready
	Backward float64   // share of a step's time that the backward pass takes
	Update   float64   // and the update
	Watts    float64   // of one rank that computes; one that waits polls, and takes as much

	Local, Network Link
	Machine        int // ranks on a machine
	Cores          int // of a machine
	Threads        int // of a rank

	Whole    Part           // the whole model; zero: nothing is known of its memory
	Stages   map[int][]Part // what ranks have of a pipeline of so many stages
	Split    map[int]Part   // what a rank has where so many compute the same examples
	Shards   int            // micro-batches of a step in a pipeline; 0: four for each rank
	Base     float64        // bytes of a process without a model: program, data
	Rest     int            // examples of an epoch's last batch, if it is smaller than the others
	Evaluate []int          // sizes of batches that are evaluated

	Ring bool // sums go around a ring of all ranks, machine by machine, as those of NCCL do, and not as package dist's
}

// Row is the prediction for one number of ranks.
type Row struct {
	Strategy     Strategy
	Ranks, Batch int     // ranks; examples that a rank computes at a time, rounded up
	Micro        int     // micro-batches of a row of pipeline stages
	Compute      float64 // seconds of a step's arithmetic
	Exchange     float64 // seconds of sums, hidden or not
	Exposed      float64 // of those, with nothing to compute
	Step         float64
	Examples     float64 // a second
	Efficiency   float64 // examples a second, over so many times those of one rank
	Joules       float64 // an example
	Bubble       float64 // seconds in which a rank of a pipeline waits for other stages
	Sent         float64 // bytes a rank sends in a step
	Across       float64 // of those, to other machines
	Memory       float64 // bytes of the rank that holds most; 0: unknown
}

// Check reports settings that make no sense.
func (j *Job) Check() error {
	if len(j.Steps) == 0 {
		return errors.New("plan: no step was measured")
	}
	for _, p := range j.Steps {
		if p.Batch < 1 || !(p.Seconds > 0) {
			return fmt.Errorf("plan: a step of %d examples that takes %g s makes no sense", p.Batch, p.Seconds)
		}
	}
	for what, l := range map[string]Link{"within a machine": j.Local, "between machines": j.Network} {
		if !(l.Latency >= 0) || !(l.Bandwidth > 0) {
			return fmt.Errorf("plan: the link %s has latency %g s and bandwidth %g B/s", what, l.Latency, l.Bandwidth)
		}
	}
	if j.Machine < 1 || j.Cores < 1 || j.Threads < 1 {
		return fmt.Errorf("plan: %d ranks of %d threads on machines of %d cores: all must be at least 1", j.Machine, j.Threads, j.Cores)
	}
	if j.Backward < 0 || j.Update < 0 || j.Backward+j.Update > 1 {
		return fmt.Errorf("plan: backward pass and update take %g and %g of a step", j.Backward, j.Update)
	}
	return nil
}

// compute is the time of a rank's step on b examples: straight lines between the measured points, the nearest line beyond them.
func (j *Job) compute(b float64) float64 {
	ps := append([]Point(nil), j.Steps...)
	sort.Slice(ps, func(i, k int) bool { return ps[i].Batch < ps[k].Batch })
	if len(ps) == 1 {
		return ps[0].Seconds * b / float64(ps[0].Batch)
	}
	i := 1
	for i < len(ps)-1 && float64(ps[i].Batch) < b {
		i++
	}
	p, q := ps[i-1], ps[i]
	slope := (q.Seconds - p.Seconds) / float64(q.Batch-p.Batch)
	// Beyond the smallest measured batch noise must not make time vanish.
	return max(p.Seconds+slope*(b-float64(p.Batch)), ps[0].Seconds*min(1, b/float64(ps[0].Batch)))
}

// shared is the network as one of the ranks of a machine sees it while all use it.
func (j *Job) shared() Link {
	return Link{j.Network.Latency, j.Network.Bandwidth / float64(j.Machine)}
}

// flow is what a sum costs a rank: its time, the bytes it sends, and of these those to other machines.
type flow struct{ seconds, sent, across float64 }

// Sum is the time of a sum of so many bytes over n ranks in a row, and the bytes that a rank sends, to ranks of its machine included.
func (j *Job) Sum(n int, bytes float64) (seconds, sent float64) {
	f := j.sum(n, 1, bytes)
	return f.seconds, f.sent
}

// Across is the bytes that each machine sends to others for a sum of so many bytes over n ranks in a row.
func (j *Job) Across(n int, bytes float64) float64 {
	return j.sum(n, 1, bytes).across * float64(min(n, j.Machine))
}

// sum is Sum over ranks that lie stride apart.
func (j *Job) sum(n, stride int, bytes float64) flow {
	if n == 1 {
		return flow{}
	}
	r := min(n, max(1, j.Machine/stride)) // ranks of a machine
	m := (n + r - 1) / r                  // machines
	ranks := float64(r)
	if j.Ring { // of each machine's ranks one speaks to the next machine: the network is its own. The slowest link sets the pace
		l, f := j.Local, flow{sent: 2 * float64(n-1) / float64(n) * bytes}
		if m > 1 {
			l = Link{max(l.Latency, j.Network.Latency), min(l.Bandwidth, j.Network.Bandwidth)}
			f.across = f.sent / ranks
		}
		f.seconds = Ring(l, n, bytes)
		return f
	}
	if m == 1 {
		return j.Local.sum(n, bytes)
	}
	if r == 1 {
		f := j.shared().sum(n, bytes)
		f.across = f.sent
		return f
	}
	within := j.Local.sum(r, bytes)
	column := j.shared().sum(m, bytes/ranks)
	if nodes := nodes(n, r); nodes > m { // a machine has several sums, which all others need
		part := bytes / ranks / float64(m)
		more, each := float64(nodes)-float64(nodes)/float64(m), float64(m-1)
		column = flow{seconds: (more + each) * j.shared().Time(part), sent: (float64(nodes)/float64(m) + 1) * each * part}
	}
	return flow{within.seconds + column.seconds, within.sent + column.sent, column.sent}
}

// nodes is how many sums machines of r ranks each make together, of the tree over n ranks.
func nodes(n, r int) (count int) {
	if r&(r-1) == 0 {
		return (n + r - 1) / r
	}
	for lo := 0; lo < n; lo += r {
		count += len(dist.Tree{N: n}.Cover(lo, min(lo+r, n)))
	}
	return count
}

// sum is that of n ranks which all have such a link to each other.
func (l Link) sum(n int, bytes float64) flow {
	f := flow{sent: 2 * float64(n-1) / float64(n) * bytes}
	// A sum by halving and doubling within a block of ranks, a power of two.
	halving := func(n int) (seconds float64) {
		part := bytes / 2
		for d := 1; d < n; d *= 2 {
			seconds += 2 * l.Time(part)
			part /= 2
		}
		return seconds
	}
	switch block := 1 << (bits.Len(uint(n)) - 1); {
	case block == n:
		f.seconds = halving(n)
	case n > dist.ManyRanks: // blocks of falling powers of two: each rank of the smaller gives its sums to its share of the greater, and has them back
		f.seconds, f.sent = halving(block), 0
		for at := 0; at < n; {
			size := 1 << (bits.Len(uint(n-at)) - 1)
			f.sent += 2 * float64(size-1) * bytes
			if rest := n - at - size; rest > 0 {
				next := 1 << (bits.Len(uint(rest)) - 1)
				f.seconds += 2 * float64(size/next) * l.Time(bytes/float64(size))
				f.sent += 2 * bytes
			}
			at += size
		}
		f.sent /= float64(n)
	default:
		f.seconds = 2 * float64(n-1) * l.Time(bytes/float64(n))
	}
	return f
}

// Ring and Doubling are the times of two other algorithms on one kind of link.
func Ring(l Link, n int, bytes float64) float64 {
	return 2*float64(n-1)*l.Latency + 2*float64(n-1)/float64(n)*bytes/l.Bandwidth
}

// Doubling is recursive doubling of whole vectors.
func Doubling(l Link, n int, bytes float64) float64 {
	return math.Ceil(math.Log2(float64(n))) * l.Time(bytes)
}

// Predict is a step of a batch on n ranks: of the same batch whatever n is, or (weak) of batch examples a rank. Bucket i of k is ready when the first (i+1)/k of the backward pass are done, and
// sums run one after another beside it.
func (j *Job) Predict(n, batch int, weak bool) Row {
	b, all := float64(batch)/float64(n), float64(batch)
	if weak {
		b, all = float64(batch), float64(batch*n)
	}
	r := Row{Ranks: n, Batch: int(math.Ceil(b)), Compute: j.compute(b) * j.crowd(n)}
	gradients := r.Compute * (1 - j.Update)
	begin := gradients - r.Compute*j.Backward
	end := 0.0
	for i, bytes := range j.Buckets {
		ready := begin + (gradients-begin)*float64(i+1)/float64(len(j.Buckets))
		f := j.sum(n, 1, bytes)
		end = max(end, ready) + f.seconds
		r.Exchange += f.seconds
		r.Sent += f.sent
		r.Across += f.across
	}
	r.Exposed = max(0, end-gradients)
	r.Step = r.Compute + r.Exposed
	r.Memory = j.memory(r.Strategy, n, b, all)
	j.rate(&r, all, weak)
	return r
}

// how names a row's strategy behind its ranks; where each has the whole model, that is not said.
func (r Row) how() string {
	if r.Strategy == (Strategy{}) {
		return ""
	}
	return fmt.Sprintf(" (%v)", r.Strategy)
}

// Advice is what the rows mean, in sentences.
func Advice(rows []Row, least float64) []string {
	if len(rows) == 0 {
		return nil
	}
	best, quickest, frugal := rows[0], rows[0], rows[0]
	for _, r := range rows {
		if r.Efficiency >= least && r.Examples > best.Examples {
			best = r
		}
		if r.Examples > quickest.Examples {
			quickest = r
		}
		if r.Joules < frugal.Joules {
			frugal = r
		}
	}
	out := []string{fmt.Sprintf("up to %d ranks%s keep %.0f%% of each rank's speed (%.0f examples/s)", best.Ranks, best.how(), 100*best.Efficiency, best.Examples)}
	if best.Efficiency < least { // not even the first row does
		out[0] = fmt.Sprintf("%d ranks%s keep %.0f%% of each rank's speed (%.0f examples/s)", best.Ranks, best.how(), 100*best.Efficiency, best.Examples)
	}
	if frugal.Ranks != best.Ranks || frugal.Strategy != best.Strategy {
		out = append(out, fmt.Sprintf("least energy an example: %d ranks%s", frugal.Ranks, frugal.how()))
	}
	if quickest.Ranks != best.Ranks || quickest.Strategy != best.Strategy {
		out = append(out, fmt.Sprintf("quickest: %d ranks%s, %.1f times the examples a second of %d for %.1f times the energy an example", quickest.Ranks, quickest.how(), quickest.Examples/best.Examples, best.Ranks, quickest.Joules/best.Joules))
	}
	if last := rows[len(rows)-1]; last.Efficiency < least {
		if last.Bubble > last.Exposed {
			out = append(out, fmt.Sprintf("at %d ranks stages wait for each other for %.0f%% of a step of %d micro-batches: larger batches and more --shards help", last.Ranks, 100*last.Bubble/last.Step, last.Micro))
		} else if last.Exposed > last.Compute {
			out = append(out, fmt.Sprintf("at %d ranks the sums take longer than the arithmetic: larger batches (a rank has %d examples) or a quicker link help, more ranks do not", last.Ranks, last.Batch))
		} else {
			out = append(out, fmt.Sprintf("at %d ranks a rank has too little to compute (%d examples): larger batches help", last.Ranks, last.Batch))
		}
	}
	return out
}
