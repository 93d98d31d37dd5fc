package dist

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// Messages posted arrive in their order beside other operations; who receives names late ranks by their numbers in the job; a rank that is gone is an error of Post or Wait.
func TestPoster(t *testing.T) {
	t.Parallel() // it waits for a deadline
	var wg sync.WaitGroup
	for i, tr := range Local(3) {
		if i == 0 {
			continue // the job has a rank that takes no part
		}
		wg.Go(func() {
			c := New(tr, 5*time.Second)
			pair, err := c.Sub([]int{1, 2}, 3)
			if err != nil {
				t.Error(err)
				return
			}
			p, to := pair.NewPoster(), 1-pair.Rank()
			var posted []*Posted
			for k := range 50 {
				x, err := p.Post(to, 9, []byte{byte(k), byte(i)})
				if err != nil {
					t.Error(err)
					return
				}
				posted = append(posted, x)
			}
			sum := []float32{1}
			if err := pair.AllReduce(sum); err != nil || sum[0] != 2 {
				t.Error(sum, err)
			}
			for k := range 50 {
				b := make([]byte, 2)
				if err := pair.Recv(to, 9, b); err != nil || b[0] != byte(k) || b[1] != byte(3-i) {
					t.Error(k, b, err)
				}
			}
			for _, x := range posted {
				if err := x.Wait(); err != nil {
					t.Error(err)
				}
			}
			if s := pair.Stats(); s.Sent < 100 || s.Messages < 50 {
				t.Errorf("%+v", s)
			}
			if i == 1 { // the other never sends
				err := pair.Recv(to, 9, make([]byte, 1))
				var late *LateError
				if !errors.As(err, &late) || late.Rank != 1 || !slices.Equal(late.Ranks, []int{2}) {
					t.Errorf("%v", err)
				}
				if err := tr.Close(); err != nil {
					t.Error(err)
				}
				return
			}
			for { // until the other is gone
				x, err := p.Post(to, 8, []byte{0})
				if err == nil {
					err = x.Wait()
				}
				if err != nil {
					if !errors.Is(err, ErrLost) {
						t.Error(err)
					}
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	wg.Wait()
}
