package plan

import (
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jouleml/joule/dist"
)

func job() *Job {
	return &Job{
		Steps: []Point{{128, 10e-3}, {64, 5.5e-3}, {32, 3.25e-3}}, Buckets: []float64{4e6, 4e6}, Backward: 0.6, Update: 0.1, Watts: 4,
		Local: Link{1e-6, 5e9}, Network: Link{20e-6, 1e9}, Machine: 2, Cores: 8, Threads: 1,
	}
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Max(math.Abs(a), math.Abs(b)) }

// The formulas, worked out by hand.
func TestSum(t *testing.T) {
	j := job()
	if s, sent := j.Sum(1, 1e6); s != 0 || sent != 0 {
		t.Error("one rank exchanges with itself")
	}
	// Two ranks of a machine: half there, half back.
	if s, sent := j.Sum(2, 1e6); !near(s, 2*(1e-6+5e5/5e9)) || !near(sent, 1e6) {
		t.Errorf("2 ranks: %g s, %g B", s, sent)
	}
	// Four on two machines: the second stage crosses the network, which two ranks share.
	if s, sent := j.Sum(4, 1e6); !near(s, 2*(1e-6+5e5/5e9)+2*(20e-6+2.5e5/0.5e9)) || !near(sent, 1.5e6) {
		t.Errorf("4 ranks: %g s, %g B", s, sent)
	}
	// Three, of which the last has a machine for itself: the same, and what each machine sends is half there and half back.
	if s, _ := j.Sum(3, 3e6); !near(s, 2*(1e-6+1.5e6/5e9)+2*(20e-6+0.75e6/0.5e9)) || !near(j.Across(3, 3e6), 3e6) {
		t.Errorf("3 ranks: %g s, %g B between machines", s, j.Across(3, 3e6))
	}
	// Three ranks of a machine are two nodes of the tree over six: each sends both, and half of the results.
	j.Machine = 3
	if s, _ := j.Sum(6, 6e6); !near(s, 2*(2e-6+4e6/5e9)+3*(20e-6+1e6/(1e9/3))) || !near(j.Across(6, 6e6), 9e6) {
		t.Errorf("6 ranks: %g s, %g B between machines", s, j.Across(6, 6e6))
	}
	l := Link{1e-5, 1e9}
	if !near(Ring(l, 4, 8e6), 6e-5+12e6/1e9) || !near(Doubling(l, 8, 1e6), 3*(1e-5+1e-3)) {
		t.Error("ring or doubling")
	}
}

// The bytes that are predicted to go between machines are those that do.
func TestAcross(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes share memory on Linux alone")
	}
	const size = 96 << 10 // numbers
	for _, c := range []struct{ ranks, machine int }{{4, 1}, {3, 1}, {4, 2}, {4, 4}, {6, 2}, {6, 3}, {8, 4}, {10, 2}, {12, 4}, {40, 2}} {
		var of []int
		for r := range c.ranks {
			of = append(of, r/c.machine)
		}
		var across atomic.Int64
		var apart atomic.Bool
		var wg sync.WaitGroup
		for _, tr := range dist.LocalOn(of) {
			wg.Go(func() {
				comm := dist.New(tr, time.Minute)
				var sent [2]int64
				for i := range sent { // the first finds the machines
					if err := comm.AllReduce(make([]float32, size)); err != nil {
						t.Error(err)
						return
					}
					if _, err := comm.Machines(); err != nil {
						t.Error(err)
						return
					}
					sent[i] = comm.Stats().Across
				}
				across.Add(sent[1] - sent[0])
				apart.Store(!comm.Shared())
			})
		}
		wg.Wait()
		runtime.GC() // and with it the memory of these ranks
		if c.machine > 1 && apart.Load() {
			t.Skipf("/dev/shm has no room for common memory of %d ranks", c.ranks)
		}
		j := job()
		j.Machine = c.machine
		want := j.Across(c.ranks, 4*size) * float64((c.ranks+c.machine-1)/c.machine)
		if got := float64(across.Load()); math.Abs(got-want) > 0.01*want {
			t.Errorf("%d ranks, %d on a machine: %g bytes between machines, predicted %g", c.ranks, c.machine, got, want)
		}
	}
}

func TestPredict(t *testing.T) {
	j := job()
	one := j.Predict(1, 128, false)
	if !near(one.Step, 10e-3) || !near(one.Efficiency, 1) || !near(one.Joules, 4*10e-3/128) {
		t.Errorf("%+v", one)
	}
	// On two ranks the first sum (1.6 ms·…) hides behind the second half of the backward pass, of the last all is exposed but nothing else.
	two := j.Predict(2, 128, false)
	sum, _ := j.Sum(2, 4e6)
	if !near(two.Compute, 5.5e-3) || !near(two.Exchange, 2*sum) || !near(two.Exposed, sum) || !near(two.Efficiency, 10e-3/(2*two.Step)) {
		t.Errorf("%+v, a sum takes %g", two, sum)
	}
	// A slow link: nothing but the first half of the backward pass hides.
	j.Local.Bandwidth = 1e8
	slow := j.Predict(2, 128, false)
	sum, _ = j.Sum(2, 4e6)
	if !near(slow.Exposed, 2*sum-0.3*slow.Compute) {
		t.Errorf("exposed %g of %g", slow.Exposed, 2*sum)
	}
	// Weak scaling keeps the rank's batch.
	if w := job().Predict(4, 32, true); w.Batch != 32 || !near(w.Compute, 3.25e-3) || !near(w.Examples, 128/w.Step) {
		t.Errorf("%+v", w)
	}
	// More threads than cores share them.
	crowded := job()
	crowded.Cores = 1
	if c := crowded.Predict(2, 128, false); !near(c.Compute, 11e-3) {
		t.Errorf("%+v", c)
	}
	// Between and beyond measured batches.
	for b, want := range map[float64]float64{96: 7.75e-3, 256: 19e-3, 16: 2.125e-3} {
		if got := job().compute(b); !near(got, want) {
			t.Errorf("%g examples: %g s, want %g", b, got, want)
		}
	}
}

func TestAdvice(t *testing.T) {
	j := job()
	var rows []Row
	for _, n := range []int{1, 2, 4, 8, 64, 1024} {
		rows = append(rows, j.Predict(n, 128, false))
	}
	a := strings.Join(Advice(rows, 0.8), "\n")
	if !strings.Contains(a, "sums take longer than the arithmetic") || rows[5].Efficiency > 0.2 {
		t.Errorf("%s\n%+v", a, rows)
	}
	for i := 1; i < len(rows); i++ {
		if rows[i].Efficiency > rows[i-1].Efficiency {
			t.Errorf("%d ranks are more efficient than %d", rows[i].Ranks, rows[i-1].Ranks)
		}
	}
}

func TestCheck(t *testing.T) {
	for what, spoil := range map[string]func(j *Job){
		"no step": func(j *Job) { j.Steps = nil }, "makes no sense": func(j *Job) { j.Steps[0].Seconds = 0 }, "bandwidth": func(j *Job) { j.Network.Bandwidth = 0 },
		"at least 1": func(j *Job) { j.Machine = 0 }, "backward": func(j *Job) { j.Backward = 2 },
	} {
		j := job()
		spoil(j)
		if err := j.Check(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := job().Check(); err != nil {
		t.Error(err)
	}
}

// Above ManyRanks a number that is no power of two costs little more than the power of two below it, whatever the number; in bytes no more than a ring and what goes between blocks.
func TestBlocks(t *testing.T) {
	j := Job{Local: Link{1e-6, 1e10}, Network: Link{2e-5, 1e9}, Machine: 1}
	for n := 17; n < 3000; n = n*9/8 + 1 {
		if n&(n-1) == 0 {
			continue
		}
		below := 1
		for 2*below < n {
			below *= 2
		}
		const size = 1e8
		seconds, sent := j.Sum(n, size)
		least, _ := j.Sum(below, size)
		if seconds <= least || sent < 2*size*float64(n-2)/float64(n) || sent > 2*size {
			t.Errorf("%d ranks: %g s and %g bytes; %d take %g s", n, seconds, sent, below, least)
		}
	}
	a, _ := j.Sum(10000, 1e8)
	b, _ := j.Sum(4096, 1e8)
	if a > 1.5*b {
		t.Errorf("10,000 ranks take %g s, 4096 %g s", a, b)
	}
}
