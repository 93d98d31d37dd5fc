package dist

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Every scheme gives all ranks the same bits, sends fewer bytes than a plain sum, and loses nothing for good: what it is given over many sums comes out, up to what it still keeps back.
func TestCompressors(t *testing.T) {
	const rows, cols, rounds = 64, 80, 60
	for _, c := range []struct {
		text string
		most float64 // bytes, over those of a plain sum
		keep float64 // greatest error of the mean over the rounds
	}{{"bf16", 0.55, 4e-3}, {"topk:0.05", 0.6, 0.3}, {"powersgd:8", 0.35, 0.3}, {"onebit:1", 0.04, 0.3}} {
		s, err := ParseScheme(c.text)
		if err != nil {
			t.Fatal(err)
		}
		for _, ranks := range []int{2, 3, 4} {
			var mu sync.Mutex
			var sums [][]float32
			all(t, ranks, func(comm *Comm) error {
				x := s.New(rows, cols)
				own := summandOf(comm.Rank(), rows*cols)
				mean := make([]float32, rows*cols)
				for range rounds {
					y := slices.Clone(own)
					if err := x.Sum(comm, y); err != nil {
						return err
					}
					for i, v := range y {
						mean[i] += v / rounds
					}
				}
				plain := 2 * float64(ranks-1) / float64(ranks) * 4 * rows * cols * rounds
				if sent := float64(comm.Stats().Sent); sent > c.most*plain*1.02 {
					return fmt.Errorf("%s: %.0f bytes sent, a plain sum sends %.0f", c.text, sent, plain)
				}
				mu.Lock()
				defer mu.Unlock()
				sums = append(sums, mean)
				return nil
			})
			want := make([]float32, rows*cols)
			for r := range ranks {
				add(want, summandOf(r, rows*cols))
			}
			for _, m := range sums[1:] {
				if !slices.Equal(m, sums[0]) {
					t.Fatalf("%s: ranks have different bits", c.text)
				}
			}
			worst, size := 0.0, 0.0
			for i, v := range sums[0] {
				worst = max(worst, math.Abs(float64(v-want[i])))
				size = max(size, math.Abs(float64(want[i])))
			}
			if worst > c.keep*size {
				t.Errorf("%s, %d ranks: the mean of %d sums is off by %.3g of %.3g", c.text, ranks, rounds, worst, size)
			}
		}
	}
}

// summandOf has numbers of one magnitude.
func summandOf(rank, size int) []float32 {
	x := summand(rank, size)
	for i, v := range x {
		x[i] = float32(math.Atan(float64(v)))
	}
	return x
}

// A matrix of low rank passes PowerSGD unchanged, up to rounding.
func TestLowRankIsExact(t *testing.T) {
	const rows, cols = 30, 20
	s, err := ParseScheme("powersgd:2")
	if err != nil {
		t.Fatal(err)
	}
	of := func(rank int) []float32 {
		x := make([]float32, rows*cols)
		for i := range rows {
			for j := range cols {
				x[i*cols+j] = float32(rank+1)*float32(math.Sin(float64(i)))*float32(j) + float32(math.Cos(float64(j)))*float32(i%3)
			}
		}
		return x
	}
	all(t, 2, func(c *Comm) error {
		p, x := s.New(rows, cols), of(c.Rank())
		if err := p.Sum(c, x); err != nil {
			return err
		}
		a, b := of(0), of(1)
		for i, v := range x {
			if d := math.Abs(float64(v - a[i] - b[i])); d > 1e-3 {
				return fmt.Errorf("element %d: %v, want %v", i, v, a[i]+b[i])
			}
		}
		return nil
	})
}

func TestSchemes(t *testing.T) {
	for _, bad := range []string{"", "zip", "bf16:2", "topk", "topk:0", "topk:2", "powersgd:0", "powersgd:x", "powersgd:100000", "onebit", "onebit:0"} {
		if _, err := ParseScheme(bad); err == nil || !strings.Contains(err.Error(), "powersgd:RANK") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s, _ := ParseScheme("powersgd:4")
	if s.New(1, 1000) != nil || s.New(6, 6) != nil || s.New(100, 100) == nil {
		t.Error("PowerSGD takes what it cannot make smaller, or leaves what it can")
	}
	for k := 1; k <= 6; k++ {
		if got := kth([]float32{3, 1, 2, 3, 0, 5}, k); got != []float32{5, 3, 3, 2, 1, 0}[k-1] {
			t.Errorf("the %d-th greatest is %v", k, got)
		}
	}
}
