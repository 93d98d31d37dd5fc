package quant

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/train"
)

// Timer measures models beside each other: the seconds of a prediction, [model][batch].
type Timer func(ctx context.Context, models ...*train.Model) ([][]float64, error)

// Tried are layers that Faster left in floats for a trial.
type Tried struct {
	Layers []string
	Gain   float64 // how many times as fast the model became by that, the geometric mean over batches
	Kept   bool    // whether they stay in floats
}

// margin is how many times as fast a model must become for layers to stay in floats, three times in a row: less is noise.
const margin = 1.05

// ErrSlower says that a model of bytes takes longer than that of floats, whatever layers stay in floats.
var ErrSlower = errors.New("quant: the model of bytes would be slower than the model of floats")

// Faster quantizes like Static, but leaves layers in floats that make the model slower as bytes: of those that are bytes each alone and each two neighbours are tried in floats, what helps most stays so, and so on until nothing
// helps. Where the model then is still slower than m, the error is ErrSlower, and the model of bytes is given as well. Which layers stay depends on the machine and on what it measures.
func Faster(ctx context.Context, m *train.Model, examples data.Dataset, o Options, timer Timer) (*train.Model, *Report, []Tried, error) {
	if err := o.observe(ctx, m, examples); err != nil {
		return nil, nil, nil, err
	}
	q, r, err := Static(ctx, m, examples, o)
	if err != nil {
		return nil, nil, nil, err
	}
	var tried []Tried
	var slow []string
	for {
		var names []string
		for _, l := range r.Layers {
			if l.Bytes && l.After > 0 { // a sum has no parameters and follows what is around it
				names = append(names, l.Name)
			}
		}
		best, at := margin, -1
		var bestModel *train.Model
		var bestReport *Report
		for _, layers := range trials(names) {
			c := o
			c.Keep = slices.Concat(o.Keep, layers)
			candidate, report, err := Static(ctx, m, examples, c)
			if err != nil {
				return nil, nil, nil, err
			}
			gain, err := faster(ctx, timer, q, candidate)
			if err != nil {
				return nil, nil, nil, err
			}
			if tried = append(tried, Tried{Layers: layers, Gain: gain}); gain >= best {
				best, at, bestModel, bestReport = gain, len(tried)-1, candidate, report
			}
		}
		if at < 0 {
			break
		}
		// What is greatest of many looks greater than it is, so it is measured again, also with the two in the other order.
		again, err := faster(ctx, timer, q, bestModel)
		if err != nil {
			return nil, nil, nil, err
		}
		slowdown, err := faster(ctx, timer, bestModel, q)
		if err != nil {
			return nil, nil, nil, err
		}
		if tried[at].Gain = min(tried[at].Gain, again, 1/slowdown); tried[at].Gain < margin {
			break
		}
		tried[at].Kept = true
		o.Keep, slow = slices.Concat(o.Keep, tried[at].Layers), append(slow, tried[at].Layers...)
		q, r = bestModel, bestReport
	}
	for i, l := range r.Layers {
		if slices.Contains(slow, l.Name) {
			r.Layers[i].Why = "slower as bytes"
		}
	}
	t, err := timer(ctx, m, q)
	if err != nil {
		return nil, nil, nil, err
	}
	if gain(t[0], t[1]) < 1/margin {
		var ms []string
		for i, v := range t[0] {
			ms = append(ms, fmt.Sprintf("%.3g ms against %.3g", t[1][i]*1e3, v*1e3))
		}
		return q, r, tried, fmt.Errorf("%w: %s", ErrSlower, strings.Join(ms, ", "))
	}
	return q, r, tried, nil
}

// trials are the names alone and each two neighbours, but never all of them.
func trials(names []string) (out [][]string) {
	for n := 1; n <= 2 && n < len(names); n++ {
		for i := range len(names) - n + 1 {
			out = append(out, names[i:i+n:i+n])
		}
	}
	return out
}

// faster is how many times as fast b is as a.
func faster(ctx context.Context, timer Timer, a, b *train.Model) (float64, error) {
	t, err := timer(ctx, a, b)
	if err != nil {
		return 0, err
	}
	return gain(t[0], t[1]), nil
}

// gain is the geometric mean of a/b.
func gain(a, b []float64) float64 {
	sum := 0.0
	for i, v := range a {
		sum += math.Log(v / b[i])
	}
	return math.Exp(sum / float64(max(1, len(a))))
}

// observe looks at the examples once, for several calls of Static.
func (o *Options) observe(ctx context.Context, m *train.Model, examples data.Dataset) error {
	if err := o.check(examples); err != nil {
		return err
	}
	if err := finite(m); err != nil {
		return err
	}
	n, err := networkOf(m.Net)
	if err != nil {
		return err
	}
	for _, e := range n.Layers {
		e.original = slices.Clone(e.Inputs)
	}
	o.seen, err = observe(ctx, m, n, data.Take(examples, o.Examples))
	return err
}

// Clock is a Timer of predictions of the first n examples of a data set, for each n that it has as many as. The models take turns in short windows; the least of the windows' medians counts, since what else the machine does can only add to it.
func Clock(ds data.Dataset, batches ...int) Timer {
	const windows, window = 12, 6 * time.Millisecond
	return func(ctx context.Context, models ...*train.Model) ([][]float64, error) {
		out := make([][]float64, len(models))
		for _, n := range batches {
			if n > ds.Len() {
				continue
			}
			x, y := ds.Spec().Tensors(n)
			idx := make([]int, n)
			for i := range idx {
				idx[i] = i
			}
			if err := ds.Fill(idx, x, y); err != nil {
				return nil, err
			}
			least := make([]float64, len(models))
			for w := range windows + 1 {
				for i, m := range models {
					var took []float64
					for start := time.Now(); len(took) < 4 || time.Since(start) < window; {
						t := time.Now()
						if _, err := m.PredictBatch(x...); err != nil {
							return nil, err
						}
						took = append(took, time.Since(t).Seconds())
					}
					if err := ctx.Err(); err != nil {
						return nil, err
					}
					took = took[1:] // the first finds the caches as another model left them
					slices.Sort(took)
					if median := took[len(took)/2]; w == 1 || w > 1 && median < least[i] { // the first window is warming up
						least[i] = median
					}
				}
			}
			for i, v := range least {
				out[i] = append(out[i], v)
			}
		}
		if len(out[0]) == 0 {
			return nil, fmt.Errorf("quant: %d examples are too few to measure predictions on", ds.Len())
		}
		return out, nil
	}
}
