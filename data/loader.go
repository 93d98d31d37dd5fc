package data

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"github.com/jouleml/joule/tensor"
)

// Batch is N examples of one step. The last batch of an epoch may be smaller than the others.
type Batch struct {
	X, Y        []*tensor.Tensor // one for each input and target; the first axis is N; nil if N is 0
	N           int
	Of          int // examples of the whole batch: N, unless the loader gives a share of it
	Epoch, Step int
}

// Position names a batch: step Step of epoch Epoch, both from 0.
type Position struct{ Epoch, Step int }

// Transform prepares a random change of examples, such as an augmentation, for data of the given spec; it returns an error when it does
// not fit that spec. Each Loader prepares its own.
type Transform func(Spec) (Apply, error)

// Apply changes example row of a batch in place. It takes every random choice from r, which depends on nothing but the loader's seed,
// the epoch and the example's number. A loader calls it from one goroutine at a time, so it may own scratch memory.
type Apply func(r *rand.Rand, x, y []*tensor.Tensor, row int)

// LoaderConfig says how a Loader makes batches. The zero value gives batches of 32 in the data set's order, for ever.
type LoaderConfig struct {
	Batch      int    // examples in a batch; 0: 32
	Shuffle    bool   // a new order in each epoch, which depends on Seed and the epoch alone
	Seed       uint64 // of the order and of the transforms
	DropLast   bool   // leave out a last batch that would be smaller
	Epochs     int    // Next returns io.EOF after this many epochs; 0: it never ends
	Prefetch   int    // batches prepared ahead; 0: 2, and up to 16 small ones
	Flat       bool   // batches of a Bucketed are in the data set's order too, all of the shapes of its Spec
	Transforms []Transform
	Share      Share // which part of every batch to give; zero: all of it
	// Mixup above 0 mixes each example, after its transforms, with another: its share is drawn from Beta(Mixup, Mixup), and targets are as Spec.Mixed says (arXiv:1710.09412).
	Mixup float64
}

// Share is some of the pieces into which batches are cut: of a batch of n examples, piece i has those from i·n/Of up to (i+1)·n/Of, so that the pieces of a batch, in order, are
// the batch, whoever loads them.
type Share struct{ Of, First, Last int } // pieces in all; the first, and behind the last, that the loader gives

// rows is which examples of a batch of n the share has.
func (s Share) rows(n int) (lo, hi int) {
	if s.Of == 0 {
		return 0, n
	}
	return s.First * n / s.Of, s.Last * n / s.Of
}

// Loader gives the batches of a Dataset one after another. They are prepared ahead on another goroutine, in a ring of tensors that is
// allocated once. A Loader serves one consumer; Close ends the goroutine.
type Loader struct {
	ds    Dataset
	sizes []Spec // of a Bucketed; else one
	size  func(i int) int
	cfg   LoaderConfig
	apply []Apply
	mix   *mixer // nil: examples are not mixed
	steps int
	rows  int      // that the loader gives of a batch, at most
	pos   Position // of the batch that the next call of Next gives

	slots      []slot
	free, full chan *slot // each has room for all slots, so a send never blocks
	held       *slot      // what the consumer has
	spent      []*slot    // what it has had: they go back several at a time, since the producer, woken for each, would take a core from those who compute
	stop, done chan struct{}

	// Owned by the goroutine in progress.
	order      []int
	cuts       []cut // of order, one for each batch
	orderEpoch int   // -1: none yet
	pcg        rand.PCG
	rng        *rand.Rand
}

// cut is a batch: the examples order[from:to] of one size.
type cut struct{ from, to, size int }

// slot is one place of the ring: the tensors of each size, made when they are first needed. Batches with fewer rows than there are at most are views of the same memory.
type slot struct {
	batch Batch
	views map[[2]int]Batch // by size and number of examples
	err   error
}

// ErrClosed is what a closed Loader returns.
var ErrClosed = errors.New("data: the loader is closed")

// NewLoader checks the configuration against the data set and allocates the ring. Nothing is read before the first Next.
func NewLoader(ds Dataset, cfg LoaderConfig) (*Loader, error) {
	if cfg.Batch == 0 {
		cfg.Batch = 32
	}
	n := ds.Len()
	switch {
	case cfg.Batch < 0 || cfg.Prefetch < 0 || cfg.Epochs < 0:
		return nil, fmt.Errorf("data: batch %d, prefetch %d, epochs %d: none may be negative", cfg.Batch, cfg.Prefetch, cfg.Epochs)
	case n == 0:
		return nil, errors.New("data: the data set has no examples")
	case cfg.DropLast && n < cfg.Batch:
		return nil, fmt.Errorf("data: the data set has %d examples, fewer than one batch of %d, and the last partial batch is to be dropped", n, cfg.Batch)
	case cfg.Share != Share{} && (cfg.Share.First < 0 || cfg.Share.First >= cfg.Share.Last || cfg.Share.Last > cfg.Share.Of):
		return nil, fmt.Errorf("data: pieces %d up to %d of %d are no share of a batch", cfg.Share.First, cfg.Share.Last, cfg.Share.Of)
	case min(cfg.Batch, n) < cfg.Share.Of:
		return nil, fmt.Errorf("data: a batch of %d examples cannot be cut into %d pieces: use larger batches or fewer pieces", min(cfg.Batch, n), cfg.Share.Of)
	}
	spec := ds.Spec()
	if err := spec.Check(); err != nil {
		return nil, err
	}
	cfg.Batch = min(cfg.Batch, n) // a data set smaller than a batch makes one batch of its own size
	l := &Loader{ds: ds, cfg: cfg, sizes: []Spec{spec}, order: make([]int, n), orderEpoch: -1}
	if b, ok := ds.(Bucketed); ok && !cfg.Flat {
		l.sizes, l.size = b.Buckets(), b.Bucket
	}
	l.steps = n / cfg.Batch
	lo, hi := cfg.Share.rows(cfg.Batch)
	l.rows = hi - lo
	if last := n % cfg.Batch; last != 0 && !cfg.DropLast {
		l.steps++
		lo, hi = cfg.Share.rows(last)
		l.rows = max(l.rows, hi-lo) // pieces are rounded: of a smaller batch a share may have one row more
	}
	for _, t := range cfg.Transforms {
		a, err := t(spec)
		if err != nil {
			return nil, err
		}
		l.apply = append(l.apply, a)
	}
	if cfg.Mixup != 0 {
		var err error
		if l.mix, err = newMixer(spec, cfg.Mixup, l.rows); err != nil {
			return nil, err
		}
		if spec, err = spec.Mixed(); err != nil {
			return nil, err
		}
		if len(l.sizes) > 1 {
			return nil, errors.New("data: mixup needs examples of one size, these come in several")
		}
		l.sizes = []Spec{spec}
	}
	if l.cfg.Prefetch == 0 {
		l.cfg.Prefetch = min(max(2, ahead/max(1, l.rows*l.exampleBytes())), 16)
	}
	l.rng = rand.New(&l.pcg)
	l.slots = make([]slot, l.cfg.Prefetch+1) // one more than is prepared ahead: the consumer holds it
	l.free, l.full = make(chan *slot, len(l.slots)), make(chan *slot, len(l.slots))
	for i := range l.slots {
		s := &l.slots[i]
		s.views = map[[2]int]Batch{}
		l.view(s, 0, l.rows)
		l.free <- s
	}
	return l, nil
}

// heads is the first n rows of each tensor.
func heads(ts []*tensor.Tensor, n int) []*tensor.Tensor {
	out := make([]*tensor.Tensor, len(ts))
	for i, t := range ts {
		out[i] = t.Slice(0, n)
	}
	return out
}

// Steps is the number of batches in an epoch.
func (l *Loader) Steps() int { return l.steps }

// BatchSize is the number of examples in every batch but a smaller last one.
func (l *Loader) BatchSize() int { return l.cfg.Batch }

// Position names the batch that the next call of Next gives. Kept in a checkpoint and given to Seek, it makes a run go on where it was.
func (l *Loader) Position() Position { return l.pos }

// Seek makes p the position. The batch that the last Next gave becomes invalid.
func (l *Loader) Seek(p Position) error {
	if l.slots == nil {
		return ErrClosed
	}
	if p.Epoch < 0 || p.Step < 0 || p.Step >= l.steps {
		return fmt.Errorf("data: no step %d of epoch %d: an epoch has %d steps of %d examples", p.Step, p.Epoch, l.steps, l.cfg.Batch)
	}
	l.halt()
	l.release(true)
	l.pos = p
	return nil
}

// Next gives the next batch, which is valid until the next call of a method. It goes on from one epoch to the next and returns io.EOF
// after the last. It waits no longer than ctx allows. After an error the position is unchanged, and Next tries the same batch again.
func (l *Loader) Next(ctx context.Context) (*Batch, error) {
	if l.slots == nil {
		return nil, ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.release(false)
	if l.ended(l.pos) {
		return nil, io.EOF
	}
	if l.done == nil {
		l.stop, l.done = make(chan struct{}), make(chan struct{})
		go l.produce(l.pos, l.stop, l.done)
	}
	select {
	case s := <-l.full:
		l.held = s
		if s.err != nil {
			l.halt()
			return nil, s.err
		}
		l.pos = l.after(l.pos)
		return &s.batch, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close ends the goroutine and gives the memory free. The Loader is of no use afterwards.
func (l *Loader) Close() {
	l.halt()
	l.slots, l.held, l.order = nil, nil, nil
}

func (l *Loader) ended(p Position) bool { return l.cfg.Epochs > 0 && p.Epoch >= l.cfg.Epochs }

func (l *Loader) after(p Position) Position {
	if p.Step++; p.Step == l.steps {
		return Position{p.Epoch + 1, 0}
	}
	return p
}

// release takes the consumer's slot, and gives slots back to the ring: all, or once they are half of it or nothing else is prepared.
func (l *Loader) release(all bool) {
	if l.held != nil {
		l.spent = append(l.spent, l.held)
		l.held = nil
	}
	if !all && 2*len(l.spent) < len(l.slots) && len(l.full) > 0 {
		return
	}
	for _, s := range l.spent {
		l.free <- s
	}
	l.spent = l.spent[:0]
}

// ahead is the bytes up to which more than two batches are prepared ahead.
const ahead = 1 << 20

// exampleBytes is the size of the greatest example.
func (l *Loader) exampleBytes() int {
	most := 0
	for _, s := range l.sizes {
		n := 0
		for _, f := range slices.Concat(s.Inputs, s.Targets) {
			n += f.Shape.Size() * f.DType.Size()
		}
		most = max(most, n)
	}
	return most
}

// halt ends the goroutine, if there is one, and takes back what it had prepared.
func (l *Loader) halt() {
	if l.done == nil {
		return
	}
	close(l.stop)
	<-l.done
	l.stop, l.done = nil, nil
	for len(l.full) > 0 {
		l.free <- <-l.full
	}
}

// produce prepares batches from p on, as slots come free, until it is stopped, has come to the end or has met an error.
func (l *Loader) produce(p Position, stop, done chan struct{}) {
	defer close(done)
	for ; !l.ended(p); p = l.after(p) {
		var s *slot
		select {
		case <-stop:
			return
		case s = <-l.free:
		}
		s.err = l.fill(s, p)
		l.full <- s
		if s.err != nil {
			return
		}
	}
}

// fill makes the batch of position p.
func (l *Loader) fill(s *slot, p Position) error {
	if l.orderEpoch != p.Epoch {
		l.setOrder(p.Epoch)
	}
	c := l.cuts[p.Step]
	idx := l.order[c.from:c.to]
	from, to := l.cfg.Share.rows(len(idx))
	s.batch = Batch{}
	if to > from {
		s.batch = l.view(s, c.size, to-from)
	}
	s.batch.Of, s.batch.Epoch, s.batch.Step = len(idx), p.Epoch, p.Step
	if idx = idx[from:to]; len(idx) == 0 {
		return nil
	}
	var err error
	if l.mix != nil {
		err = l.fillMixed(idx, s.batch, p.Epoch)
	} else if err = l.ds.Fill(idx, s.batch.X, s.batch.Y); err == nil {
		l.change(transformStream, p.Epoch, idx, s.batch.X, s.batch.Y)
	}
	if err != nil {
		return fmt.Errorf("reading batch %d of epoch %d: %w", p.Step, p.Epoch, err)
	}
	return nil
}

// seed makes the generator that of an example in an epoch, for one use.
func (l *Loader) seed(stream uint64, epoch, example int) {
	seedExample(&l.pcg, l.cfg.Seed, stream, epoch, example)
}

// seedExample makes g the generator of an example in an epoch, of what a stream of numbers is for.
func seedExample(g *rand.PCG, seed, stream uint64, epoch, example int) {
	g.Seed(mix(mix(seed+stream)+uint64(epoch)), mix(uint64(example)))
}

// change makes the random changes of a batch's rows, those of example idx[row] with its own numbers of the stream.
func (l *Loader) change(stream uint64, epoch int, idx []int, x, y []*tensor.Tensor) {
	if len(l.apply) == 0 {
		return
	}
	for row, i := range idx {
		l.seed(stream, epoch, i)
		for _, a := range l.apply {
			a(l.rng, x, y, row)
		}
	}
}

// view is the slot's batch of n examples of a size.
func (l *Loader) view(s *slot, size, n int) Batch {
	k := [2]int{size, n}
	b, ok := s.views[k]
	if !ok {
		b.N = n
		if n == l.rows {
			b.X, b.Y = l.sizes[size].Tensors(n)
		} else {
			whole := l.view(s, size, l.rows)
			b.X, b.Y = heads(whole.X, n), heads(whole.Y, n)
		}
		s.views[k] = b
	}
	return b
}

// setOrder makes the order of an epoch, by Fisher and Yates' shuffle of 0, 1, 2, ... and cuts it into batches. Where examples have several sizes the order is
// sorted by size, a batch has the size of its largest example, and the batches are shuffled again.
func (l *Loader) setOrder(epoch int) {
	l.orderEpoch = epoch
	for i := range l.order {
		l.order[i] = i
	}
	if l.cfg.Shuffle {
		l.pcg.Seed(mix(l.cfg.Seed+orderStream), mix(uint64(epoch)))
		shuffle(l.rng, l.order)
	}
	if l.size != nil {
		slices.SortStableFunc(l.order, func(a, b int) int { return l.size(a) - l.size(b) })
	}
	l.cuts = l.cuts[:0]
	for k := range l.steps {
		c := cut{from: k * l.cfg.Batch, to: min((k+1)*l.cfg.Batch, len(l.order))}
		if l.size != nil {
			c.size = l.size(l.order[c.to-1])
		}
		l.cuts = append(l.cuts, c)
	}
	if l.cfg.Shuffle && l.size != nil {
		shuffle(l.rng, l.cuts)
	}
}

// Numbers that keep the uses of one seed apart.
const (
	orderStream uint64 = iota + 1
	transformStream
	splitStream
	mixStream
	partnerStream
	// sampleStream may be the same as another: the seed that chooses examples is not the loader's.
	sampleStream = mixStream
)

// shuffle puts a into a random order, each with the same probability.
func shuffle[T any](r *rand.Rand, a []T) {
	for i := len(a) - 1; i > 0; i-- {
		j := r.IntN(i + 1)
		a[i], a[j] = a[j], a[i]
	}
}

// mix is a bijection of 64-bit numbers that takes neighbours far apart (the output function of SplitMix64; Steele, Lea and Flood,
// "Fast splittable pseudorandom number generators", 2014). It makes seeds out of counters.
func mix(z uint64) uint64 {
	z += 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
