package prune

import (
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Shared lets the weights of a kernel take a few values: those of a codebook that k-means finds and training refines, the gradient of a value being the sum of its weights' (Deep Compression, arXiv:1510.00149). Zeros
// stay zeros. Pass it to Compile with train.Wrapped, give the model the weights that it is to share, and pass it to Fit as a callback (or call Start); Model.Merge makes the values ordinary weights, of which SavePacked
// keeps the numbers.
//
// Values of a codebook move many weights at once: train.RateFactor("codebook/*", 0.1) suits Adam.
type Shared struct {
	train.Hooks
	Values int      // of a kernel's codebook, zero not counted: 1 to 4095
	Skip   []string // patterns of names that are left alone (train.Matches)

	names []string
}

const (
	bookPrefix  = "codebook/"
	indexPrefix = "index/"
)

// Check says what is wrong with the settings.
func (p *Shared) Check() error {
	if p.Values < 1 || p.Values > 4095 {
		return fmt.Errorf("prune: a codebook of %d values; 1 to 4095 are possible, 15 or 31 usual", p.Values)
	}
	return nil
}

func (p *Shared) on(param nn.Param) bool { return chosen(param, p.Skip) }

// Freezes implements train.Wrapper: values are learned in place of weights.
func (p *Shared) Freezes(param nn.Param) bool { return p.on(param) }

// Wrap implements train.Wrapper: codebook[index], where the value of index 0 is zero.
func (p *Shared) Wrap(c *nn.Call, param nn.Param, w *graph.Node) *graph.Node {
	if !p.on(param) {
		return w
	}
	if !slices.Contains(p.names, param.Name) {
		p.names = append(p.names, param.Name)
	}
	ones := tensor.New(dtype.F32, p.Values+1)
	for i := 1; i <= p.Values; i++ {
		ones.F32()[i] = 1
	}
	book := op.Mul(c.Extra(bookPrefix+param.Name, nn.Zeros, true, p.Values+1), c.G.Const(ones))
	return op.Gather(book, c.ExtraOf(indexPrefix+param.Name, graph.T(dtype.I32, w.Shape()...)), 0)
}

// Begin implements train.Callback: it finds the values, unless the training goes on from a checkpoint, which has them.
func (p *Shared) Begin(t *train.Training) error {
	if t.Steps > 0 {
		return nil
	}
	return p.Start(t.Model)
}

// Start finds the values of the model's weights as they are.
func (p *Shared) Start(m *train.Model) error {
	if err := p.Check(); err != nil {
		return err
	}
	if err := skips(m, p.Skip); err != nil {
		return err
	}
	for _, name := range p.names {
		w, err := m.State().Get(name)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		if i := slices.IndexFunc(w.F32(), func(v float32) bool { return v-v != 0 }); i >= 0 {
			return fmt.Errorf("prune: weight %d of %s is not finite; it has no place in a codebook", i, name)
		}
		book, index := cluster(w.F32(), p.Values)
		b, at := tensor.New(dtype.F32, p.Values+1), tensor.New(dtype.I32, w.Shape()...)
		copy(b.F32(), book)
		copy(at.I32(), index)
		if err := m.State().Set(bookPrefix+name, b); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		if err := m.State().Set(indexPrefix+name, at); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	return nil
}

// cluster finds k values for the weights that are not zero, by k-means in one dimension that begins at evenly spaced values (which Deep Compression found best: great weights are rare and matter), and for each weight the
// number of its value, from 1; 0 stands for zero.
func cluster(w []float32, k int) (book []float32, index []int32) {
	book, index = make([]float32, k+1), make([]int32, len(w))
	var x []float64
	for _, v := range w {
		if v != 0 {
			x = append(x, float64(v))
		}
	}
	if len(x) == 0 {
		return book, index
	}
	slices.Sort(x)
	sums := make([]float64, len(x)+1)
	for i, v := range x {
		sums[i+1] = sums[i] + v
	}
	at := make([]float64, k)
	for i := range at {
		at[i] = x[0] + (x[len(x)-1]-x[0])*(float64(i)+0.5)/float64(k)
	}
	for range 50 {
		moved := 0.0
		from := 0
		for i := range at {
			to := len(x)
			if i+1 < k {
				middle := (at[i] + at[i+1]) / 2
				to = max(from, sort.SearchFloat64s(x, middle))
			}
			if to > from {
				mean := (sums[to] - sums[from]) / float64(to-from)
				moved = max(moved, math.Abs(mean-at[i]))
				at[i] = mean
			}
			from = to
		}
		slices.Sort(at)
		if moved == 0 {
			break
		}
	}
	for i, v := range at {
		book[i+1] = float32(v)
	}
	for i, v := range w {
		if v == 0 {
			continue
		}
		j := sort.SearchFloat64s(at, float64(v))
		if j == k || j > 0 && float64(v)-at[j-1] < at[j]-float64(v) {
			j--
		}
		index[i] = int32(j + 1)
	}
	return book, index
}

var (
	_ train.Wrapper  = (*Shared)(nil)
	_ train.Callback = (*Shared)(nil)
	_ train.Wrapper  = (*Movement)(nil)
	_ train.Callback = (*SNIP)(nil)
)
