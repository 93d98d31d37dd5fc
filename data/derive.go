package data

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/jouleml/joule/tensor"
)

// Subset is the examples idx of ds, in that order; an example may come several times. It keeps idx.
func Subset(ds Dataset, idx []int) (Dataset, error) {
	for k, i := range idx {
		if i < 0 || i >= ds.Len() {
			return nil, fmt.Errorf("data: entry %d of a subset is example %d, outside [0, %d)", k, i, ds.Len())
		}
	}
	s := &subset{ds: ds, idx: idx}
	if b, ok := ds.(Bucketed); ok {
		return &bucketedSubset{s, b}, nil
	}
	if l, ok := ds.(Labeler); ok {
		return &labeledSubset{s, l}, nil
	}
	return s, nil
}

// Streams reorders ds so that batches of n, read in order, are n streams side by side: row r of each batch is the example of ds after row r of the batch before. Stream r is the stretch of
// ds from r·⌊Len/n⌋ on; the last Len mod n examples are left out. index has the number in ds of each example. It is for models that carry their state from batch to batch.
func Streams(ds Dataset, n int) (streams Dataset, index []int, err error) {
	if n < 1 || ds.Len() < n {
		return nil, nil, fmt.Errorf("data: %d examples cannot be read as %d streams: a batch must have at least 1 example and at most all of them", ds.Len(), n)
	}
	steps := ds.Len() / n
	for k := range steps * n {
		index = append(index, k%n*steps+k/n)
	}
	streams, err = Subset(ds, index)
	return streams, index, err
}

// Take is the first n examples of ds, or all of them when there are fewer.
func Take(ds Dataset, n int) Dataset {
	idx := make([]int, max(0, min(n, ds.Len())))
	for i := range idx {
		idx[i] = i
	}
	s, err := Subset(ds, idx)
	if err != nil {
		panic("data: Take made an index outside the data set")
	}
	return s
}

// Sample is n examples of ds, or all of them when there are fewer, chosen at random and in random order. Which they are depends on seed and the number of examples alone, and those of a smaller n are the first of a greater one.
func Sample(ds Dataset, n int, seed uint64) Dataset {
	idx := make([]int, ds.Len())
	for i := range idx {
		idx[i] = i
	}
	shuffle(rand.New(rand.NewPCG(mix(seed+sampleStream), 0)), idx)
	s, err := Subset(ds, idx[:max(0, min(n, len(idx)))])
	if err != nil {
		panic("data: Sample made an index outside the data set")
	}
	return s
}

type subset struct {
	ds      Dataset
	idx     []int
	scratch sync.Pool // *[]int
}

type labeledSubset struct {
	*subset
	labels Labeler
}

type bucketedSubset struct {
	*subset
	of Bucketed
}

func (s *bucketedSubset) Buckets() []Spec  { return s.of.Buckets() }
func (s *bucketedSubset) Bucket(i int) int { return s.of.Bucket(s.idx[i]) }

func (s *labeledSubset) Label(i int) int { return s.labels.Label(s.idx[i]) }

func (s *subset) Spec() Spec { return s.ds.Spec() }
func (s *subset) Len() int   { return len(s.idx) }

func (s *subset) Fill(idx []int, x, y []*tensor.Tensor) error {
	p, ok := s.scratch.Get().(*[]int)
	if !ok {
		p = new([]int)
	}
	defer s.scratch.Put(p)
	*p = (*p)[:0]
	for _, i := range idx {
		*p = append(*p, s.idx[i])
	}
	return s.ds.Fill(*p, x, y)
}

// Split divides ds at random into two parts; the first has the given fraction of the examples, rounded. The division depends on seed and
// the number of examples alone. It is an error when a part would be empty.
func Split(ds Dataset, fraction float64, seed uint64) (first, rest Dataset, err error) {
	return split(ds, fraction, seed, make([]int, ds.Len()))
}

// SplitStratified is Split with, in both parts, the same share of each class as in ds, as near as whole examples allow.
func SplitStratified(ds Dataset, fraction float64, seed uint64) (first, rest Dataset, err error) {
	classes, err := Labels(ds)
	if err != nil {
		return nil, nil, err
	}
	return split(ds, fraction, seed, classes)
}

// split divides each class (a number for each example) by itself.
func split(ds Dataset, fraction float64, seed uint64, class []int) (first, rest Dataset, err error) {
	n := ds.Len()
	take := int(math.Round(fraction * float64(n)))
	if !(fraction > 0 && fraction < 1) || take == 0 || take == n {
		return nil, nil, fmt.Errorf("data: a fraction of %v would leave a part of %d examples empty; it must be between 0 and 1", fraction, n)
	}
	members := map[int][]int{}
	for i, c := range class {
		members[c] = append(members[c], i)
	}
	r := rand.New(rand.NewPCG(mix(seed+splitStream), 0))
	type share struct {
		all  []int
		take int
		over float64 // what rounding down left out
	}
	var shares []share
	for c := 0; len(shares) < len(members); c++ {
		if m := members[c]; m != nil {
			shuffle(r, m)
			exact := fraction * float64(len(m))
			shares = append(shares, share{m, int(exact), exact - math.Floor(exact)})
			take -= int(exact)
		}
	}
	slices.SortStableFunc(shares, func(a, b share) int { // the classes that lost most get the examples that are left to give
		switch {
		case a.over > b.over:
			return -1
		case a.over < b.over:
			return 1
		}
		return 0
	})
	var one, two []int
	for i, s := range shares {
		if i < take {
			s.take++
		}
		one, two = append(one, s.all[:s.take]...), append(two, s.all[s.take:]...)
	}
	slices.Sort(one)
	slices.Sort(two)
	if first, err = Subset(ds, one); err != nil {
		return nil, nil, err
	}
	rest, err = Subset(ds, two)
	return first, rest, err
}

// Labels is the class of each example of ds. It reads the examples when ds is no Labeler.
func Labels(ds Dataset) ([]int, error) {
	spec := ds.Spec()
	if spec.Classes == 0 || len(spec.Targets) == 0 {
		return nil, fmt.Errorf("data: the data set has no classes")
	}
	labels := make([]int, ds.Len())
	if l, ok := ds.(Labeler); ok {
		for i := range labels {
			labels[i] = l.Label(i)
		}
		return labels, nil
	}
	err := Each(ds, 256, func(first int, x, y []*tensor.Tensor) error {
		for k := range x[0].Shape()[0] {
			labels[first+k] = int(y[0].At(k))
			if labels[first+k] < 0 || labels[first+k] >= spec.Classes {
				return fmt.Errorf("data: example %d has class %d, outside [0, %d)", first+k, labels[first+k], spec.Classes)
			}
		}
		return nil
	})
	return labels, err
}

// Each calls f with all examples of ds in order, in batches, of which the last may be smaller; first is the number of a batch's first example. x and y are good until f returns.
func Each(ds Dataset, batch int, f func(first int, x, y []*tensor.Tensor) error) error {
	n := ds.Len()
	idx := make([]int, min(batch, n))
	x, y := ds.Spec().Tensors(len(idx))
	for first := 0; first < n; first += batch {
		if n-first < len(idx) {
			idx, x, y = idx[:n-first], heads(x, n-first), heads(y, n-first)
		}
		for k := range idx {
			idx[k] = first + k
		}
		if err := ds.Fill(idx, x, y); err != nil {
			return err
		}
		if err := f(first, x, y); err != nil {
			return err
		}
	}
	return nil
}

// Map is ds with each batch changed by f: x and y are a batch of ds, toX and toY one of the same number of examples to be written, whose
// fields are those of to. f may be called from several goroutines at the same time, and must treat each example by itself.
func Map(ds Dataset, to Spec, f func(x, y, toX, toY []*tensor.Tensor) error) (Dataset, error) {
	if err := to.Check(); err != nil {
		return nil, err
	}
	return &mapped{ds: ds, to: to, f: f, free: map[int][]*scratch{}}, nil
}

type mapped struct {
	ds Dataset
	to Spec
	f  func(x, y, toX, toY []*tensor.Tensor) error

	mu   sync.Mutex
	free map[int][]*scratch // by the number of examples, of which there are few: a batch and a last batch
}

type scratch struct{ x, y []*tensor.Tensor }

func (m *mapped) Spec() Spec { return m.to }
func (m *mapped) Len() int   { return m.ds.Len() }

func (m *mapped) Fill(idx []int, x, y []*tensor.Tensor) error {
	s := m.get(len(idx))
	defer m.put(len(idx), s)
	if err := m.ds.Fill(idx, s.x, s.y); err != nil {
		return err
	}
	return m.f(s.x, s.y, x, y)
}

func (m *mapped) get(n int) *scratch {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.free[n]; len(l) > 0 {
		m.free[n] = l[:len(l)-1]
		return l[len(l)-1]
	}
	x, y := m.ds.Spec().Tensors(n)
	return &scratch{x, y}
}

func (m *mapped) put(n int, s *scratch) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free[n] = append(m.free[n], s)
}
