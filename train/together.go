package train

import (
	"errors"
	"fmt"
	"math"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/tensor"
)

// StepTogether is Step shared out over the ranks (or shards) of Across: x and y are the whole batch, the same on every rank, of which each computes its part. All ranks must call it, with models of
// the same seed. It returns the mean loss of the batch, with local steps that of this rank's part. A loss that is not a number is an error, and leaves the weights as they were.
func (m *Model) StepTogether(x, y []*tensor.Tensor, rate float64) (loss float64, err error) {
	if !m.sharing() {
		return m.Step(x, y, rate)
	}
	if len(x) == 0 || len(y) == 0 {
		return 0, errors.New("train: a step needs a batch")
	}
	g, err := m.group()
	if err != nil {
		return 0, err
	}
	n := x[0].Shape()[0]
	if n < g.Shards {
		return 0, fmt.Errorf("train: a batch of %d examples cannot be shared out to %d", n, g.Shards)
	}
	lo, _ := g.piece(n, g.lo)
	_, hi := g.piece(n, g.hi-1)
	b := &data.Batch{N: hi - lo, Of: n}
	for _, t := range x {
		b.X = append(b.X, t.Slice(lo, hi))
	}
	for _, t := range y {
		b.Y = append(b.Y, t.Slice(lo, hi))
	}
	if err := g.warm(); err != nil {
		return 0, err
	}
	g.updates++
	if h := int64(g.Local); h > 1 && m.Comm() != nil {
		var sum float64
		loss, _, err = g.alone(b, train, rate, wishes{}, g.updates%h == 0, &sum, nil)
	} else {
		loss, _, err = g.step(b, train, rate, wishes{}, nil)
	}
	if err == nil && (math.IsNaN(loss) || math.IsInf(loss, 0)) {
		err = fmt.Errorf("train: the loss of the batch is %v", loss)
	}
	return loss, err
}
