package train_test

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// A step that ranks share leaves the bits of one process with as many shards, and gives its loss; ranks that take their steps alone differ until they meet.
func TestStepTogether(t *testing.T) {
	tr, _ := load(t, 64)
	x, y := tr.Spec().Tensors(13)
	if err := tr.Fill([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, x, y); err != nil {
		t.Fatal(err)
	}
	steps := func(p train.Parallel, n int, x, y []*tensor.Tensor) (*train.Model, float64, error) {
		m, err := train.Compile(small(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(p), train.Threads(1))
		loss := 0.0
		for range n {
			if err == nil {
				loss, err = m.StepTogether(x, y, 0.01)
			}
		}
		return m, loss, err
	}
	one, want, err := steps(train.Parallel{Shards: 2}, 3, x, y)
	if err != nil {
		t.Fatal(err)
	}
	if _, alone, err := steps(train.Parallel{}, 3, x, y); err != nil || math.Abs(alone-want) > 1e-3 {
		t.Errorf("one piece: loss %g, two %g, %v", alone, want, err)
	}
	weights := func(m *train.Model) string {
		var b strings.Builder
		for _, p := range m.Params() {
			w, _ := m.State().Get(p.Name)
			b.Write(w.Bytes())
		}
		return b.String()
	}
	allRanks(t, 2, func(c *dist.Comm) error {
		for _, zero := range []int{0, 2} {
			m, loss, err := steps(train.Parallel{Comm: c, Zero: zero}, 3, x, y)
			if err != nil {
				return err
			}
			if weights(m) != weights(one) || loss != want {
				return fmt.Errorf("ZeRO %d: other bits than one process, or loss %g in place of %g", zero, loss, want)
			}
		}
		m, _, err := steps(train.Parallel{Comm: c, Local: 2}, 3, x, y)
		if err != nil {
			return err
		}
		all, err := dist.Gather(c, weights(m))
		if err != nil {
			return err
		}
		if all[0] == all[1] {
			return fmt.Errorf("after a step alone the ranks have the same weights")
		}
		if m, _, err = steps(train.Parallel{Comm: c, Local: 2}, 4, x, y); err != nil {
			return err
		}
		if all, err = dist.Gather(c, weights(m)); err == nil && all[0] != all[1] {
			err = fmt.Errorf("after they met the ranks have other weights")
		}
		return err
	})
	for _, err := range everyRank(t, 2, func(c *dist.Comm) error {
		_, _, err := steps(train.Parallel{Comm: c}, 1, []*tensor.Tensor{x[0].Slice(0, 1)}, []*tensor.Tensor{y[0].Slice(0, 1)})
		return err
	}) {
		if err == nil || !strings.Contains(err.Error(), "cannot be shared out to 2") {
			t.Errorf("%v", err)
		}
	}
}
