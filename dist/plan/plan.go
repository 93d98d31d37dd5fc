// Package plan predicts what a training costs on many ranks, from single steps measured on one rank and a link's latency and bandwidth.
//
// A message of m bytes takes α + m·β seconds, with latency α and β the inverse of the bandwidth (Hockney, "The communication challenge for MPP", 1994). A sum over n ranks is then, with
// the algorithms of package dist (Thakur, Rabenseifner & Gropp, "Optimization of collective communication operations in MPICH", 2005):
//
//   - n a power of two, recursive halving and doubling: 2·Σ_s (α_s + B/2^(s+1)·β_s) over the log2(n) stages s; stages between ranks of one machine use its link;
//   - other n up to 16, every rank with every other: 2·((n-1)·α + (n-1)/n·B·β);
//   - greater ones, in blocks of falling powers of two (Rabenseifner & Träff 2004): that of the greatest block, and for each pair of blocks of s and s' < s ranks 2·(s/s'·α + B/s'·β).
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

// link is that between ranks so far apart.
func (j *Job) link(distance int) Link {
	if distance >= j.Machine {
		return j.shared()
	}
	return j.Local
}

// Sum is the time of a sum of so many bytes over n ranks in a row, and the bytes that a rank sends.
func (j *Job) Sum(n int, bytes float64) (seconds, sent float64) { return j.sum(n, 1, bytes) }

// sum is Sum over ranks that lie stride apart.
func (j *Job) sum(n, stride int, bytes float64) (seconds, sent float64) {
	if n == 1 {
		return 0, 0
	}
	sent = 2 * float64(n-1) / float64(n) * bytes
	if j.Ring { // of each machine's ranks one speaks to the next machine: the network is its own. The slowest link sets the pace
		l := j.Local
		if n*stride > j.Machine {
			l = Link{max(l.Latency, j.Network.Latency), min(l.Bandwidth, j.Network.Bandwidth)}
		}
		return Ring(l, n, bytes), sent
	}
	// A sum by halving and doubling within a block of ranks, a power of two.
	halving := func(n int) (seconds float64) {
		part := bytes / 2
		for d := 1; d < n; d *= 2 {
			seconds += 2 * j.link(d*stride).Time(part)
			part /= 2
		}
		return seconds
	}
	switch block := 1 << (bits.Len(uint(n)) - 1); {
	case block == n:
		return halving(n), sent
	case n > dist.ManyRanks: // blocks of falling powers of two: each rank of the smaller gives its sums to its share of the greater, and has them back
		seconds, sent = halving(block), 0
		for at := 0; at < n; {
			size := 1 << (bits.Len(uint(n-at)) - 1)
			sent += 2 * float64(size-1) * bytes
			if rest := n - at - size; rest > 0 {
				next := 1 << (bits.Len(uint(rest)) - 1)
				seconds += 2 * float64(size/next) * j.link(size*stride).Time(bytes/float64(size))
				sent += 2 * bytes
			}
			at += size
		}
		return seconds, sent / float64(n)
	}
	near := min(n, max(1, j.Machine/stride))
	each := bytes / float64(n)
	seconds = 2 * float64(near-1) * j.Local.Time(each)
	if n > near {
		seconds += 2 * float64(n-near) * j.shared().Time(each)
	}
	return seconds, sent
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
		t, sent := j.Sum(n, bytes)
		end = max(end, ready) + t
		r.Exchange += t
		r.Sent += sent
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
