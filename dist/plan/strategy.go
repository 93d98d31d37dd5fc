package plan

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"
)

// Bytes grow with the examples that are computed at a time: Fixed, and Each for every example.
type Bytes struct{ Fixed, Each float64 }

// Of is the number of bytes for so many examples.
func (b Bytes) Of(examples float64) float64 { return b.Fixed + b.Each*examples }

// Part is what one rank has of a model: all of it, a stage of a pipeline, or its part of layers that several ranks compute together.
type Part struct {
	First  string  // the layer that it begins with
	Shares []Share // of the time that forward and backward pass of the whole model take, by the number of examples; at least one

	// Bytes of values: parameters and moving averages, what of them is added up over ranks, the optimizer's state.
	Parameters, Gradients, State float64
	Parted                       float64 // of Gradients, those of which each rank that computes the same examples has a part of its own: only ranks with the same part add them up
	PartedState                  float64 // of State, that of such parameters

	// Forward goes to the next stage for a micro-batch, Backward comes back from it.
	Forward, Backward Bytes

	// Sums are how many sums over the ranks that compute together lie within forward and backward pass, Summed their bytes together.
	Sums   float64
	Summed Bytes

	// Memory and Evaluate are what the programs hold that train and evaluate on so many examples.
	Memory, Evaluate Bytes
}

// Share is what a part takes of the time of forward and backward pass of so many examples: products with weights weigh more in small batches.
type Share struct {
	Batch int
	Of    float64
}

// share is that of any number of examples: straight lines between those that are known, the nearest beyond them.
func (p Part) share(examples float64) float64 {
	s := slices.SortedFunc(slices.Values(p.Shares), func(a, b Share) int { return a.Batch - b.Batch })
	if len(s) == 0 {
		return 0
	}
	for i := 1; i < len(s); i++ {
		if a, b := s[i-1], s[i]; examples < float64(b.Batch) {
			at := max(0, (examples-float64(a.Batch))/float64(b.Batch-a.Batch))
			return a.Of + at*(b.Of-a.Of)
		}
	}
	return s[len(s)-1].Of
}

// Strategy is how ranks share a training; the zero value: each has the whole model and a part of each batch. Zero and Tensor go together.
type Strategy struct {
	Zero     int `json:",omitempty"` // stage of ZeRO
	Tensor   int `json:",omitempty"` // ranks that compute the same examples together
	Pipeline int `json:",omitempty"` // stages
}

// String names the strategy by its flag of joule train; "data" where there is none.
func (s Strategy) String() string {
	switch {
	case s.Zero > 0 && s.Tensor > 1:
		return fmt.Sprintf("tensor %d, zero %d", s.Tensor, s.Zero)
	case s.Zero > 0:
		return fmt.Sprintf("zero %d", s.Zero)
	case s.Tensor > 1:
		return fmt.Sprintf("tensor %d", s.Tensor)
	case s.Pipeline > 1:
		return fmt.Sprintf("pipeline %d", s.Pipeline)
	}
	return "data"
}

// together is how many ranks have the same examples.
func (s Strategy) together() int { return max(1, s.Tensor, s.Pipeline) }

// Strategies are those that n ranks can use, of what the job says about the model.
func (j *Job) Strategies(n int) []Strategy {
	out := []Strategy{{}}
	if n > 1 && j.Whole.State > 0 {
		out = append(out, Strategy{Zero: 1}, Strategy{Zero: 2})
	}
	for _, p := range slices.Sorted(maps.Keys(j.Stages)) {
		if n%p == 0 {
			out = append(out, Strategy{Pipeline: p})
		}
	}
	for _, t := range slices.Sorted(maps.Keys(j.Split)) {
		if n%t == 0 {
			out = append(out, Strategy{Tensor: t})
			if j.Whole.State > 0 {
				out = append(out, Strategy{Tensor: t, Zero: 1}, Strategy{Tensor: t, Zero: 2})
			}
		}
	}
	return out
}

// Can is why n ranks cannot share a batch so; nil: they can.
func (j *Job) Can(s Strategy, n, batch int, weak bool) error {
	switch k := s.together(); {
	case n%k != 0:
		return fmt.Errorf("plan: %v: %d ranks are no multiple of %d", s, n, k)
	case !weak && n/k > batch:
		return fmt.Errorf("plan: a batch of %d examples is too small for %d ranks (%v)", batch, n, s)
	case s.Pipeline > 1 && len(j.Stages[s.Pipeline]) != s.Pipeline:
		return fmt.Errorf("plan: nothing is known of %d pipeline stages", s.Pipeline)
	case s.Tensor > 1 && len(j.Split[s.Tensor].Shares) == 0:
		return fmt.Errorf("plan: nothing is known of layers that are split over %d ranks", s.Tensor)
	}
	return nil
}

// PredictAs is Predict for a strategy, which must be possible (Can).
func (j *Job) PredictAs(s Strategy, n, batch int, weak bool) Row {
	switch {
	case s.Pipeline > 1:
		return j.pipeline(s, n, batch, weak)
	case s.Tensor > 1:
		return j.tensor(s, n, batch, weak)
	case s.Zero > 0:
		return j.zero(s, n, batch, weak)
	}
	return j.Predict(n, batch, weak)
}

// update is the time of the update of all parameters, which does not depend on the batch.
func (j *Job) update() float64 {
	most := slices.MaxFunc(j.Steps, func(a, b Point) int { return a.Batch - b.Batch })
	return j.Update * most.Seconds
}

// passes is the time of forward and backward pass of b examples on one rank, and the share of it that is backward.
func (j *Job) passes(b float64) (seconds, backward float64) {
	t := j.compute(b)
	return max(t-j.update(), 0.1*t), j.Backward / max(1-j.Update, 1e-9)
}

// crowd is how many times longer a rank computes because a machine's ranks have more threads than it has cores.
func (j *Job) crowd(n int) float64 {
	return max(1, float64(min(n, j.Machine)*j.Threads)/float64(j.Cores))
}

// share is what n ranks, of which k have the same examples, have of a batch: examples of a rank, and of all.
func share(n, k, batch int, weak bool) (each, all float64) {
	if weak {
		return float64(batch * k), float64(batch * n)
	}
	return float64(batch) * float64(k) / float64(n), float64(batch)
}

// rate fills what follows from the time of a step.
func (j *Job) rate(r *Row, all float64, weak bool) {
	n := float64(r.Ranks)
	one := all / n / j.compute(all/n)
	if !weak {
		one = all / j.compute(all)
	}
	r.Examples = all / r.Step
	r.Efficiency = r.Examples / (n * one)
	r.Joules = n * j.Watts * r.Step / all
}

// hidden is when sums of buckets over n ranks that lie stride apart are done, of which bucket i of k is ready when (i+1)/k of the time from begin to end have passed: one after another, part of each. It also gives what they cost.
func (j *Job) hidden(n, stride int, buckets []float64, begin, end, part float64) (done float64, total flow) {
	for i, bytes := range buckets {
		ready := begin + (end-begin)*float64(i+1)/float64(len(buckets))
		f := j.sum(n, stride, bytes)
		done = max(done, ready) + part*f.seconds
		total.add(f, part)
	}
	return max(done, end), total
}

// add adds so many times g.
func (f *flow) add(g flow, times float64) {
	f.seconds += times * g.seconds
	f.sent += times * g.sent
	f.across += times * g.across
}

// zero shares state out: sums are scattered behind the backward pass, each rank updates its part, and then all gather the weights.
func (j *Job) zero(s Strategy, n, batch int, weak bool) Row {
	each, all := share(n, 1, batch, weak)
	fb, backward := j.passes(each)
	fb *= j.crowd(n)
	update := j.update() * j.crowd(n) / float64(n)
	done, scatter := j.hidden(n, 1, j.Buckets, fb*(1-backward), fb, 0.5)
	_, gather := j.hidden(n, 1, j.Buckets, 0, 0, 0.5)
	r := Row{Strategy: s, Ranks: n, Batch: int(math.Ceil(each)), Compute: fb + update, Exposed: done - fb + gather.seconds}
	scatter.add(gather, 1)
	r.Exchange, r.Sent, r.Across = scatter.seconds, scatter.sent, scatter.across
	r.Step = r.Compute + r.Exposed
	r.Memory = j.memory(s, n, each, all)
	j.rate(&r, all, weak)
	return r
}

// tensor lets ranks in a row compute the same examples: what is split takes its share of the time, the sums within the passes are all waited for, gradients of whole parameters are added up over all ranks, those of parts over the ranks that have the same.
func (j *Job) tensor(s Strategy, n, batch int, weak bool) Row {
	p := j.Split[s.Tensor]
	each, all := share(n, s.Tensor, batch, weak)
	fb, backward := j.passes(each)
	fb *= p.share(each) * j.crowd(n)
	update := j.update() * j.crowd(n)
	rows := float64(n / s.Tensor)
	mine, hidden := p.Parameters+p.State, 1.0 // what a rank updates, and the share of sums that lies behind the backward pass
	if s.Zero > 0 {
		parted := p.Parted + p.PartedState
		mine, hidden = parted/rows+(mine-parted)/float64(n), 0.5
	}
	if whole := j.Whole.Parameters + j.Whole.State; whole > 0 {
		update *= mine / whole
	}
	r := Row{Strategy: s, Ranks: n, Batch: int(math.Ceil(each)), Compute: fb + update}
	var sums flow
	if p.Sums > 0 {
		sums.add(j.sum(s.Tensor, 1, p.Summed.Of(each)/p.Sums), p.Sums)
	}
	inner := sums.seconds
	fb += inner
	r.Exposed = inner
	for _, over := range []struct {
		ranks, stride int
		bytes         float64
	}{{n, 1, p.Gradients - p.Parted}, {n / s.Tensor, s.Tensor, p.Parted}} {
		done, total := j.hidden(over.ranks, over.stride, buckets(over.bytes), fb*(1-backward), fb, hidden)
		r.Exposed += done - fb
		sums.add(total, 1)
		if s.Zero > 0 { // then all gather the weights
			_, gather := j.hidden(over.ranks, over.stride, buckets(over.bytes), 0, 0, 0.5)
			r.Exposed += gather.seconds
			sums.add(gather, 1)
		}
	}
	r.Exchange, r.Sent, r.Across = sums.seconds, sums.sent, sums.across
	r.Step = r.Compute + r.Exposed
	r.Memory = j.memory(s, n, each, all)
	j.rate(&r, all, weak)
	return r
}

// microBatches is how many micro-batches there are for each rank where nobody says otherwise, as in a training.
const microBatches = 4

// micro is how many micro-batches a row of stages has in a step, and the examples of one.
func (j *Job) micro(rows, n int, each float64) (m int, examples float64) {
	shards := j.Shards
	if shards == 0 {
		shards = microBatches * n
	}
	m = max(1, (shards+rows-1)/rows)
	m = min(m, max(1, int(math.Ceil(each)))) // those without examples cost nothing
	return m, each / float64(m)
}

// pipeline lets each rank of a row have some of the layers: the schedule is that of a training, one forward, one backward.
func (j *Job) pipeline(s Strategy, n, batch int, weak bool) Row {
	stages, rows := j.Stages[s.Pipeline], n/s.Pipeline
	each, all := share(n, s.Pipeline, batch, weak)
	m, examples := j.micro(rows, n, each)
	fb, backward := j.passes(examples)
	fb *= j.crowd(n)
	r := Row{Strategy: s, Ranks: n, Batch: int(math.Ceil(examples)), Micro: m}
	k := len(stages)
	f, b, there, back := make([]float64, k), make([]float64, k), make([]float64, k), make([]float64, k)
	for i, p := range stages {
		f[i], b[i] = fb*p.share(examples)*(1-backward), fb*p.share(examples)*backward
		if i < k-1 {
			l, sent := j.Local, float64(m)*(p.Forward.Of(examples)+p.Backward.Of(examples))/float64(k)
			if s.Pipeline > j.Machine && (i+1)%j.Machine == 0 { // the next stage is on the next machine
				l = j.Network
				r.Across += sent
			}
			there[i], back[i] = l.Time(p.Forward.Of(examples)), l.Time(p.Backward.Of(examples))
			r.Sent += sent
		}
	}
	end := schedule(m, f, b, there, back)
	update := j.update() * j.crowd(n)
	whole := 0.0
	for _, p := range stages {
		whole += p.State + p.Parameters
	}
	control, _ := j.Sum(s.Pipeline, 64)
	for i, p := range stages {
		// Gradients are added up over the ranks that have this stage while the last micro-batch comes back through it.
		done, total := j.hidden(rows, s.Pipeline, buckets(p.Gradients), end[i]-b[i], end[i], 1)
		own := float64(m)*(f[i]+b[i]) + update*(p.State+p.Parameters)/max(whole, 1)
		if step := done + control + update*(p.State+p.Parameters)/max(whole, 1); step > r.Step {
			r.Step, r.Exposed = step, done-end[i]
		}
		r.Compute = max(r.Compute, own)
		r.Exchange = max(r.Exchange, total.seconds)
		r.Sent += total.sent / float64(k)
		r.Across += total.across / float64(k)
	}
	r.Bubble = max(0, r.Step-r.Compute-r.Exposed)
	r.Memory = j.memory(s, n, each, all)
	j.rate(&r, all, weak)
	return r
}

// buckets is how gradients are cut for their way, as package train does.
func buckets(bytes float64) (out []float64) {
	least := min(max(bytes/8, 64<<10), 25<<20)
	for bytes > 0 {
		b := min(bytes, least)
		if bytes-b < 1 { // rounding leaves no bucket of its own
			b = bytes
		}
		out, bytes = append(out, b), bytes-b
	}
	return out
}

// schedule is when each stage of a pipeline has done with m micro-batches, one forward, one backward (Narayanan et al., arXiv:2104.04473): stage i of k lets k-1-i of them through, goes forward
// with one and backward with the oldest by turns, and then backward with the rest. f and b are the times of a micro-batch in each stage, there and back those of its messages to the next one and back.
func schedule(m int, f, b, there, back []float64) (end []float64) {
	k := len(f)
	type task struct {
		forward bool
		i       int
	}
	tasks := make([][]task, k)
	fdone, bdone := make([][]float64, k), make([][]float64, k)
	for s := range k {
		ahead := min(k-1-s, m)
		for i := range m + ahead {
			if i < m {
				tasks[s] = append(tasks[s], task{true, i})
			}
			if i >= ahead {
				tasks[s] = append(tasks[s], task{false, i - ahead})
			}
		}
		fdone[s], bdone[s] = slices.Repeat([]float64{-1}, m), slices.Repeat([]float64{-1}, m)
	}
	end = make([]float64, k)
	for left := true; left; {
		left = false
		for s := range k {
			for len(tasks[s]) > 0 {
				t, from := tasks[s][0], 0.0
				switch {
				case t.forward && s > 0:
					if from = fdone[s-1][t.i]; from >= 0 {
						from += there[s-1]
					}
				case !t.forward && s < k-1:
					if from = bdone[s+1][t.i]; from >= 0 {
						from += back[s]
					}
				}
				if from < 0 { // it is not there yet
					break
				}
				end[s] = max(end[s], from)
				if t.forward {
					end[s] += f[s]
					fdone[s][t.i] = end[s]
				} else {
					end[s] += b[s]
					bdone[s][t.i] = end[s]
				}
				tasks[s] = tasks[s][1:]
				left = true
			}
		}
	}
	return end
}

// memory is what a rank holds, the one that holds most: the process and its data, values, gradients and the programs for the batches that a training meets; 0 where the job does not say what a model is.
func (j *Job) memory(s Strategy, n int, each, all float64) float64 {
	programs := func(p Part, examples, batch float64, times float64) float64 {
		bytes := times * p.Memory.Of(examples)
		if j.Rest > 0 && all > 0 { // the last batch of an epoch has a program of its own
			bytes += times * p.Memory.Of(math.Ceil(examples*float64(j.Rest)/all))
		}
		for _, b := range j.Evaluate {
			bytes += p.Evaluate.Of(float64(b))
		}
		return bytes
	}
	if j.Whole.Parameters == 0 {
		return 0
	}
	switch {
	case s.Pipeline > 1:
		rows := n / s.Pipeline
		m, examples := j.micro(rows, n, each)
		slots := float64(max(1, bits.Len(uint(m-1))))
		most := 0.0
		for i, p := range j.Stages[s.Pipeline] {
			lanes := float64(min(s.Pipeline-i, m))
			bytes := p.Parameters + p.State + slots*p.Gradients + programs(p, math.Ceil(examples), all, lanes)
			if i == 0 { // it puts whole checkpoints together
				bytes += j.Whole.Parameters + j.Whole.State - p.Parameters - p.State
			}
			most = max(most, bytes)
		}
		return j.Base + most
	case s.Tensor > 1:
		p := j.Split[s.Tensor]
		rows := float64(n / s.Tensor)
		parted := float64(s.Tensor) * p.Parted // rank 0 puts whole checkpoints together, beside its parts
		if s.Zero == 0 {
			whole := parted + j.Whole.State - (p.State - p.PartedState)
			return j.Base + p.Parameters + p.State + p.Gradients + whole + programs(p, each, all, 1)
		}
		state := (p.State-p.PartedState)/float64(n) + p.PartedState/rows
		gradients := p.Gradients + p.Parted/rows + (p.Gradients-p.Parted)/float64(n)
		if s.Zero == 2 {
			gradients += inProgress(p.Gradients, append(buckets(p.Parted), buckets(p.Gradients-p.Parted)...)) - p.Gradients
		}
		return j.Base + p.Parameters + state + gradients + parted + j.Whole.State + programs(p, each, all, 1)
	}
	p := j.Whole
	bytes := p.Parameters + p.State + p.Gradients
	switch s.Zero {
	case 1:
		bytes += p.State/float64(n) - p.State + p.Gradients/float64(n)
	case 2:
		bytes += p.State/float64(n) - p.State + p.Gradients/float64(n) + inProgress(p.Gradients, j.Buckets) - p.Gradients
	}
	return j.Base + bytes + programs(p, each, all, 1)
}

// inProgress is the bytes of gradients that stage 2 of ZeRO holds at a time: those of the bucket that is computed and of the one that is sent.
func inProgress(gradients float64, buckets []float64) float64 {
	most := 0.0
	for _, b := range buckets {
		most = max(most, b)
	}
	return min(2*most, gradients)
}

// clearly is how many times quicker a strategy must be than one that stands before it to be preferred: predictions are not as exact as that.
const clearly = 1.05

// Quickest is the row with most examples a second of those whose memory a rank has (limit; 0: any), or the first that comes within a twentieth of it; ok is false where none has room.
func Quickest(rows []Row, limit float64) (best Row, ok bool) {
	for _, r := range rows {
		if limit > 0 && r.Memory > limit {
			continue
		}
		if !ok || r.Examples > clearly*best.Examples {
			best, ok = r, true
		}
	}
	return best, ok
}
