package plan

import (
	"math"
	"slices"
	"testing"
)

// Stages of equal time without messages wait for (P-1)/(M+P-1) of a step, whatever share of it is backward.
func TestBubble(t *testing.T) {
	for _, k := range []int{1, 2, 3, 8} {
		for _, m := range []int{1, 2, 5, 32} {
			f, b, no := slices.Repeat([]float64{1}, k), slices.Repeat([]float64{2.5}, k), make([]float64, k)
			end := slices.Max(schedule(m, f, b, no, no))
			if want := 3.5 * float64(m+k-1); !near(end, want) {
				t.Errorf("%d stages, %d micro-batches: %g, want %g", k, m, end, want)
			}
		}
	}
	// Two stages, one micro-batch, messages of 10 and 100: nothing hides them.
	if end := schedule(1, []float64{1, 2}, []float64{3, 4}, []float64{10, 0}, []float64{100, 0}); end[0] != 1+10+2+4+100+3 || end[1] != 1+10+2+4 {
		t.Errorf("%v", end)
	}
	// Of two stages the slow one sets the pace: it never waits but for its first micro-batch.
	if end := schedule(4, []float64{1, 3}, []float64{1, 3}, []float64{0, 0}, []float64{0, 0}); end[1] != 1+4*6 {
		t.Errorf("%v", end)
	}
}

func shared() *Job {
	j := job()
	j.Machine = 4
	j.Whole = Part{First: "a", Shares: []Share{{128, 1}}, Parameters: 8e6, Gradients: 8e6, State: 16e6, Memory: Bytes{1e6, 1e5}, Evaluate: Bytes{0, 5e4}}
	half := Part{First: "a", Shares: []Share{{128, 0.5}}, Parameters: 4e6, Gradients: 4e6, State: 8e6, Forward: Bytes{0, 1e4}, Backward: Bytes{0, 2e4}, Memory: Bytes{5e5, 5e4}, Evaluate: Bytes{0, 2e4}}
	last := half
	last.First, last.Forward, last.Backward = "b", Bytes{}, Bytes{}
	j.Stages = map[int][]Part{2: {half, last}}
	j.Split = map[int]Part{2: {First: "a", Shares: []Share{{128, 0.6}}, Parameters: 8e6, Gradients: 8e6, State: 16e6, Sums: 4, Summed: Bytes{0, 4e4}, Memory: Bytes{1e6, 6e4}, Evaluate: Bytes{0, 5e4}}}
	j.Base = 50e6
	return j
}

// The formulas, worked out by hand.
func TestStrategies(t *testing.T) {
	j := shared()
	if got := j.Strategies(4); !slices.Equal(got, []Strategy{{}, {Zero: 1}, {Zero: 2}, {Pipeline: 2}, {Tensor: 2}, {Tensor: 2, Zero: 1}, {Tensor: 2, Zero: 2}}) || len(j.Strategies(3)) != 3 || len(j.Strategies(1)) != 1 {
		t.Errorf("%v", got)
	}
	const update = 1e-3 // a tenth of the step of 128
	// Two stages on two ranks: 8 micro-batches of 16 examples; each stage has half of what a step of 16 takes beside the update.
	p := j.PredictAs(Strategy{Pipeline: 2}, 2, 128, false)
	fb := (j.compute(16) - update) / 2
	if p.Micro != 8 || p.Batch != 16 || !near(p.Compute, 8*fb+update/2) || p.Bubble < fb || p.Bubble > fb+8*(j.Local.Time(16*1e4)+j.Local.Time(16*2e4)) || !near(p.Step, p.Compute+p.Exposed+p.Bubble) || p.Exchange != 0 {
		t.Errorf("%+v, a micro-batch takes %g", p, fb)
	}
	if want := 8 * 16 * 3e4 / 2.0; !near(p.Sent, want) {
		t.Errorf("sent %g, want %g", p.Sent, want)
	}
	// Memory: the first stage has two programs on their way, three slots of gradients, and the whole state when it puts a checkpoint together.
	if want := 50e6 + 4e6 + 8e6 + 3*4e6 + 2*(5e5+16*5e4) + 12e6; !near(p.Memory, want) {
		t.Errorf("memory %g, want %g", p.Memory, want)
	}
	// Four ranks: two rows; gradients of a stage are added up over two ranks.
	if q := j.PredictAs(Strategy{Pipeline: 2}, 4, 128, false); q.Exchange <= 0 || q.Micro != 8 || q.Batch != 8 || q.Step >= p.Step {
		t.Errorf("%+v", q)
	}
	// A slower link between the machines of the two stages makes the step longer.
	slow := shared()
	slow.Machine, slow.Network = 1, Link{1e-3, 1e8}
	if q := slow.PredictAs(Strategy{Pipeline: 2}, 2, 128, false); q.Step <= p.Step+2e-3 {
		t.Errorf("%g, on one machine %g", q.Step, p.Step)
	}
	// Layers split over two ranks: all examples, 0.6 of the passes, four sums of 128·1e4 bytes that are waited for.
	s := j.PredictAs(Strategy{Tensor: 2}, 2, 128, false)
	sum, _ := j.Sum(2, 128*1e4)
	if !near(s.Compute, 0.6*9e-3+update) || s.Batch != 128 || s.Exposed < 4*sum || !near(s.Step, s.Compute+s.Exposed) || !near(s.Memory, 50e6+8e6+8e6+16e6+1e6+128*6e4) {
		t.Errorf("%+v, a sum takes %g", s, sum)
	}
	// With ZeRO beside it, of 3e6 bytes of parts on two rows: the state of whole parameters on all ranks, that of parts on those that have the same; rank 0 puts whole checkpoints together. The weights' way is exposed.
	part := j.Split[2]
	part.Parted, part.PartedState = 3e6, 6e6
	j.Split[2] = part
	t0, t1, t2 := j.PredictAs(Strategy{Tensor: 2}, 4, 128, false), j.PredictAs(Strategy{Tensor: 2, Zero: 1}, 4, 128, false), j.PredictAs(Strategy{Tensor: 2, Zero: 2}, 4, 128, false)
	all := 50e6 + 8e6 + 2*3e6 + j.Whole.State + 1e6 + 64*6e4
	if !near(t1.Memory, all+8e6+(16e6-6e6)/4+6e6/2+3e6/2+5e6/4) || t2.Memory >= t1.Memory || t1.Exposed <= t0.Exposed || t1.Compute >= t0.Compute || !near(t1.Sent, t0.Sent) || t1.Strategy.String() != "tensor 2, zero 1" {
		t.Errorf("%+v\n%+v\n%+v\n%g", t0, t1, t2, all)
	}
	if !near(t0.Memory, 50e6+8e6+16e6+8e6+2*3e6+j.Whole.State-10e6+1e6+64*6e4) {
		t.Errorf("%+v", t0)
	}
	// ZeRO: the update is shared, the gathering of weights is exposed; memory falls.
	d, z1, z2 := j.PredictAs(Strategy{}, 2, 128, false), j.PredictAs(Strategy{Zero: 1}, 2, 128, false), j.PredictAs(Strategy{Zero: 2}, 2, 128, false)
	gather, _ := j.Sum(2, 4e6)
	if !near(z1.Compute, j.compute(64)-update/2) || z1.Exposed < gather || !near(z1.Sent, d.Sent) || z1.Memory != d.Memory-8e6+4e6 || z2.Memory != z1.Memory-0 {
		t.Errorf("%+v\n%+v\n%+v", d, z1, z2)
	}
	// Batches of other sizes have programs of their own.
	j.Rest, j.Evaluate = 64, []int{10, 30}
	if more := j.PredictAs(Strategy{}, 1, 128, false); !near(more.Memory-50e6-32e6, (1e6+128e5)+(1e6+64e5)+40*5e4) {
		t.Errorf("%+v", more)
	}
	for _, c := range []struct {
		s        Strategy
		n, batch int
	}{{Strategy{Pipeline: 2}, 3, 128}, {Strategy{Pipeline: 4}, 4, 128}, {Strategy{Tensor: 4}, 4, 128}, {Strategy{Tensor: 2}, 64, 8}, {Strategy{}, 64, 8}} {
		if err := j.Can(c.s, c.n, c.batch, false); err == nil {
			t.Errorf("%v on %d ranks, batch %d", c.s, c.n, c.batch)
		}
	}
	if err := j.Can(Strategy{Tensor: 2}, 64, 8, true); err != nil {
		t.Error(err)
	}
}

func TestQuickest(t *testing.T) {
	j := shared()
	var rows []Row
	for _, s := range j.Strategies(2) {
		rows = append(rows, j.PredictAs(s, 2, 128, false))
	}
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		least, most = min(least, r.Memory), max(most, r.Examples)
	}
	if best, ok := Quickest(rows, 0); !ok || best.Examples*clearly < most {
		t.Errorf("%+v", best)
	}
	if best, ok := Quickest(rows, least); !ok || best.Memory != least {
		t.Errorf("%+v", best)
	}
	if _, ok := Quickest(rows, least-1); ok {
		t.Error("something fits where nothing does")
	}
}

// Shares lie on straight lines between those that are known.
func TestShare(t *testing.T) {
	p := Part{Shares: []Share{{16, 0.5}, {4, 0.8}}}
	for b, want := range map[float64]float64{1: 0.8, 4: 0.8, 10: 0.65, 16: 0.5, 100: 0.5} {
		if got := p.share(b); !near(got, want) {
			t.Errorf("%g examples: %g, want %g", b, got, want)
		}
	}
}

// Buckets add up to what they are made of.
func TestBuckets(t *testing.T) {
	for _, bytes := range []float64{0, 1, 3.3e6, 64 << 10, 8e8} {
		sum := 0.0
		bs := buckets(bytes)
		for _, b := range bs {
			sum += b
		}
		if !near(sum, bytes) || bytes < 2e8 && len(bs) > 8 {
			t.Errorf("%g: %v", bytes, bs)
		}
	}
}
