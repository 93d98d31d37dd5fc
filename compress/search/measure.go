package search

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

const (
	windows = 6
	window  = 50 * time.Millisecond
)

// Measure evaluates a model on examples and measures its predictions: joules are those of the ledger.
func Measure(ctx context.Context, m *train.Model, ds data.Dataset) (Measures, *energy.Ledger, error) {
	out := Measures{Layers: map[string]float64{}, Seconds: map[string]float64{}}
	total := energy.NewLedger(energy.CPU, m.Cores())
	a, err := m.StartAccount(nil)
	if err != nil {
		return out, nil, err
	}
	if out.Quality, err = quant.QualityOf(ctx, m, ds); err != nil {
		return out, nil, err
	}
	l, err := a.Ledger()
	if err != nil {
		return out, nil, err
	}
	total.Merge(l)
	for _, p := range m.Params() {
		out.Bytes += p.Type.Bytes()
	}
	if out.Disk, err = m.PlainSize(); err != nil {
		return out, nil, err
	}
	if out.Detail, err = detail(m); err != nil {
		return out, nil, err
	}
	for _, n := range []int{1, min(32, ds.Len())} {
		x, y := ds.Spec().Tensors(n)
		idx := make([]int, n)
		for i := range idx {
			idx[i] = i
		}
		if err := ds.Fill(idx, x, y); err != nil {
			return out, nil, err
		}
		for range 3 { // warm
			if _, err := m.PredictBatch(x...); err != nil {
				return out, nil, err
			}
		}
		// Of some windows the one of fewest joules counts: whatever else the machine does can only add to it.
		var ms []float64
		var best *energy.Ledger
		least, count := math.Inf(1), 0.0
		for range windows {
			if a, err = m.StartAccount(nil); err != nil {
				return out, nil, err
			}
			k := 0
			for start := time.Now(); k < 3 || k < 200 && time.Since(start) < window; k++ {
				t := time.Now()
				if _, err := m.PredictBatch(x...); err != nil {
					return out, nil, err
				}
				ms = append(ms, time.Since(t).Seconds()*1e3)
				if err := ctx.Err(); err != nil {
					return out, nil, err
				}
			}
			if l, err = a.Ledger(); err != nil {
				return out, nil, err
			}
			total.Merge(l)
			if v := l.Joules.Value / float64(k*n); v < least {
				least, best, count = v, l, float64(k*n)
			}
		}
		slices.Sort(ms)
		by := best.By(func(k energy.Key) energy.Key { return energy.Key{Layer: out.owner(k.Layer)} })
		if n == 1 {
			out.MS = ms[len(ms)/2]
			for _, line := range by {
				out.Seconds[line.Layer] += line.Seconds / count
			}
		}
		if n > 1 || ds.Len() < 2 {
			out.BatchMS = ms[len(ms)/2]
			out.Joules = least
			for _, line := range by {
				out.Layers[line.Layer] += line.Joules.Value / count
			}
		}
	}
	if out.Joules == 0 {
		return out, nil, errors.New("search: no prediction could be measured")
	}
	return out, total, nil
}

// owner is the layer that a part of one belongs to, such as a Transformer block's attention: what is narrowed and compared are whole layers. What belongs to none stays as it is.
func (m *Measures) owner(part string) string {
	for name := part; ; {
		if slices.ContainsFunc(m.Detail, func(l Layer) bool { return l.Name == name }) {
			return name
		}
		end := strings.LastIndexByte(name, '/')
		if end < 0 {
			return part
		}
		name = name[:end]
	}
}
