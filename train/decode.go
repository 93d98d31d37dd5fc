package train

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Decoder lets sequences grow: it feeds tokens to a language model and keeps what the model needs of those before (the keys and values of attention), so that a
// token costs the same work whether it is the second or the thousandth, attention's share aside. Sequences may have different lengths. A model has one Decoder in use at a time for
// each number of sequences and room.
//
// Where all attention is within a window (nn.Model.Window) sequences may grow without end: the memory is a ring of the window's places and those of the tokens that are fed at once (64), in which
// a token takes the place of one that nobody looks at any more.
//
// Of a model of which ranks have parts (Parallel.Tensor, Fixed) each keeps the keys and values of its heads. All ranks of a row must make the same calls with the same tokens; all get the same scores.
type Decoder struct {
	m               *Model
	sequences, room int
	window          int   // > 0: so many positions are looked at, and the memory is a ring
	length          []int // tokens of each sequence
	lengths         *tensor.Tensor
	counts          *tensor.Tensor
	top             int              // so many of the most probable tokens are found; 0: none
	out             []*tensor.Tensor // scores [sequences, vocabulary], then of the top the logarithms of probabilities and the tokens i32 [sequences, top]
	input           int              // which of the model's inputs grows
	other           []*tensor.Tensor // the others, nil in the place of input; nil until Begin
	begun           bool             // other has been read
	aside           []byte           // see permute
}

// chunks are how many tokens of a sequence a program takes at once, greatest first: the last must be 1.
var chunks = []int{64, 8, 1}

// DecoderOption refines a Decoder.
type DecoderOption func(d *Decoder)

// TopTokens lets each step of a decoder find the n most probable next tokens of every sequence, all of a smaller vocabulary; see Decoder.Top.
func TopTokens(n int) DecoderOption { return func(d *Decoder) { d.top = n } }

// Decoder makes a decoder of so many sequences with room for so many tokens each. The model must take a sequence of tokens i32 and give scores or
// probabilities of the next token at each position, and no position may see later ones. It may have other inputs, what an encoder reads: see Begin.
func (m *Model) Decoder(sequences, room int, opts ...DecoderOption) (*Decoder, error) {
	input, err := m.growingInput()
	if err != nil {
		return nil, err
	}
	if sequences < 1 || room < 1 {
		return nil, fmt.Errorf("train: a decoder of %d sequences with room for %d tokens: both must be at least 1", sequences, room)
	}
	d := &Decoder{m: m, sequences: sequences, room: room, length: make([]int, sequences), input: input}
	for _, o := range opts {
		o(d)
	}
	if d.top < 0 {
		return nil, fmt.Errorf("train: a decoder that is to find %d tokens", d.top)
	}
	if w, ok := m.Net.Window(); ok {
		d.window, d.room = w, w-1+chunks[0]
	}
	d.lengths, d.counts = tensor.New(dtype.I32, sequences), tensor.New(dtype.I32, sequences)
	p, err := m.program1(d.key(1, false)) // mistakes show now
	if err != nil {
		return nil, err
	}
	for _, t := range p.out {
		d.out = append(d.out, tensor.New(t.DType(), t.Shape()...))
	}
	return d, nil
}

// growingInput is which of the model's inputs is the sequence that it goes on with.
func (m *Model) growingInput() (int, error) {
	in := m.Spec.Inputs
	for i, f := range in {
		if (len(in) == 1 || f.Name == m.Spec.Grows) && f.DType == dtype.I32 && len(f.Shape) == 1 {
			return i, nil
		}
	}
	return 0, fmt.Errorf("train: the model takes no sequence of tokens, so it cannot go on with one")
}

// Begin makes the sequences empty and says what they answer to: the model's inputs, [sequences …] each, in their order but for the one that grows. It is for models with
// several inputs, an encoder and a decoder: the encoder runs once, with the first token that is fed.
func (d *Decoder) Begin(x ...*tensor.Tensor) error {
	in := d.m.Spec.Inputs
	if len(x) != len(in)-1 {
		return fmt.Errorf("train: a decoder is begun with %d inputs, the model has %d beside the one that grows", len(x), len(in)-1)
	}
	d.other = make([]*tensor.Tensor, len(in))
	for i := range in {
		if i == d.input {
			continue
		}
		t := x[0]
		x = x[1:]
		if want := graph.T(in[i].DType, append([]int{d.sequences}, in[i].Shape...)...); !graph.TypeOf(t).Equal(want) {
			return fmt.Errorf("train: input %s is %v, the decoder needs %v", in[i].Name, graph.TypeOf(t), want)
		}
		d.other[i] = t.Clone()
	}
	d.Reset()
	return nil
}

func (d *Decoder) key(time int, ragged bool) programKey {
	k := programKey{mode: decode, batch: d.sequences, time: time, room: d.room, ragged: ragged, ring: d.window > 0, top: d.top, split: d.m.fixed && d.m.inParts()}
	if time > 1 {
		k.mode = prefill
	}
	return k
}

// Len is the number of tokens of the longest sequence, Lens that of each.
func (d *Decoder) Len() int { return slices.Max(d.length) }

// Lens is the number of tokens of each sequence.
func (d *Decoder) Lens() []int { return slices.Clone(d.length) }

// Room is the number of tokens that there is room for, 0 where sequences may grow without end.
func (d *Decoder) Room() int {
	if d.window > 0 {
		return 0
	}
	return d.room
}

// Reset makes the sequences empty.
func (d *Decoder) Reset() {
	clear(d.length)
	d.begun = false
}

// Restart makes one sequence empty. It goes on to answer to what Begin was told.
func (d *Decoder) Restart(sequence int) { d.length[sequence] = 0 }

// Feed appends tokens [sequences, n], n at least 1, and gives the scores [sequences, vocabulary] of what comes next: logarithms of probabilities up to a constant
// where the model ends in a softmax, else what it gives. They are overwritten by the next call.
func (d *Decoder) Feed(tokens []int32) (*tensor.Tensor, error) {
	n := len(tokens) / d.sequences
	if n == 0 || n*d.sequences != len(tokens) {
		return nil, fmt.Errorf("train: %d tokens are no multiple, from 1 on, of %d sequences", len(tokens), d.sequences)
	}
	each := make([][]int32, d.sequences)
	for s := range each {
		each[s] = tokens[s*n : (s+1)*n]
	}
	return d.FeedEach(each)
}

// Top is what TopTokens has asked for, after a call of Feed or FeedEach: the logarithms of the greatest probabilities of each sequence's next token in order, those of the softmax of the
// scores, and the tokens i32 that have them, of equals the lower first, [sequences, n] both; nil without TopTokens. What is no number stands first. They are overwritten by the next call.
func (d *Decoder) Top() (logp, tokens *tensor.Tensor) {
	if d.top == 0 {
		return nil, nil
	}
	return d.out[1], d.out[2]
}

// FeedEach appends to each sequence tokens of its own, as many as it has; the scores of one that is given none stay as they are. See Feed.
func (d *Decoder) FeedEach(tokens [][]int32) (*tensor.Tensor, error) {
	if len(tokens) != d.sequences {
		return nil, fmt.Errorf("train: tokens for %d sequences, the decoder has %d", len(tokens), d.sequences)
	}
	most, least := 0, len(tokens[0])
	for s, ts := range tokens {
		most, least = max(most, len(ts)), min(least, len(ts))
		if d.window == 0 && d.length[s]+len(ts) > d.room {
			return nil, fmt.Errorf("train: %d tokens and %d more are above the decoder's room for %d", d.length[s], len(ts), d.room)
		}
		if d.length[s] > math.MaxInt32-len(ts)-chunks[0] {
			return nil, fmt.Errorf("train: %d tokens and %d more are more than can be counted", d.length[s], len(ts))
		}
	}
	if most == 0 {
		return nil, errors.New("train: there are no tokens to go on with")
	}
	several := len(d.m.Spec.Inputs) > 1
	if several && d.other == nil {
		return nil, errors.New("train: the model has other inputs than the sequence that grows: Begin says what they are")
	}
	ragged := least < most
	for at := 0; at < most; {
		time := chunk(most-at, ragged)
		begin := several && !d.begun
		if begin { // one token, so that there is one program that reads the other inputs
			time = 1
		}
		k := d.key(time, ragged)
		if begin {
			k.mode, k.begin = prefill, true
		}
		p, err := d.m.program1(k)
		if err != nil {
			return nil, err
		}
		for i, t := range d.other {
			if t != nil {
				p.in[i] = t
			}
		}
		x := p.in[d.input].I32()
		clear(x)
		for s, ts := range tokens {
			n := max(0, min(time, len(ts)-at))
			if n > 0 {
				copy(x[s*time:(s+1)*time], ts[at:at+n])
			}
			d.counts.I32()[s], d.lengths.I32()[s] = int32(n), int32(d.length[s]+time)
			d.length[s] += n
		}
		at += time
		n := len(d.m.Spec.Inputs)
		in := append(p.in[:n], d.lengths)
		if ragged {
			in = append(in, d.counts)
		}
		if err := p.check(in[:n]); err != nil {
			return nil, err
		}
		if err := p.exec.Run(in, p.out); err != nil {
			return nil, err
		}
		if err := d.m.met(p); err != nil {
			return nil, err
		}
		d.begun = true
		for i, t := range p.out {
			if !ragged { // what the program has written becomes the decoder's: nothing is copied
				d.out[i], p.out[i] = t, d.out[i]
				continue
			}
			for s, n := range d.counts.I32() {
				if n > 0 {
					copy(row(d.out[i], s), row(t, s))
				}
			}
		}
	}
	return d.out[0], nil
}

// chunk is how many of n tokens a program takes next. Sequences of different lengths fill up a chunk with what is not looked at rather than run many short ones.
func chunk(n int, ragged bool) int {
	best := chunks[0]
	for _, c := range chunks {
		if ragged && c >= n {
			best = c
		} else if !ragged && c <= n {
			return c
		}
	}
	return best
}

// row is the bytes of row i of t.
func row(t *tensor.Tensor, i int) []byte {
	n := len(t.Bytes()) / t.Shape()[0]
	return t.Bytes()[i*n : (i+1)*n]
}

// Reorder makes sequence i go on as sequence from[i] has been so far: for a search that drops some and follows others twice.
func (d *Decoder) Reorder(from []int) error {
	if len(from) != d.sequences {
		return fmt.Errorf("train: an order of %d for %d sequences", len(from), d.sequences)
	}
	same := true
	for i, f := range from {
		if f < 0 || f >= d.sequences {
			return fmt.Errorf("train: there is no sequence %d", f)
		}
		same = same && i == f
	}
	if same {
		return nil
	}
	most := 0 // tokens of a sequence that takes another's place
	length := slices.Clone(d.length)
	for i, f := range from {
		if d.length[i] = length[f]; i != f {
			most = max(most, length[f])
		}
	}
	for _, t := range d.out {
		d.permute(t, from, len(row(t, 0)))
	}
	others := false // whether what is kept of the other inputs has to move too
	for _, t := range d.other {
		if t != nil && !alike(t, from) {
			others = true
			d.permute(t, from, len(row(t, 0)))
		}
	}
	p, err := d.m.program1(d.key(1, false))
	if err != nil {
		return err
	}
	for _, v := range p.g.Variables() {
		name := graph.NameOf(v)
		memory := strings.Contains(name, "/memory_")
		if !nn.Cached(name) || memory && !others {
			continue
		}
		size := v.Type().Bytes() / d.sequences
		if sh := v.Shape(); !memory && d.window == 0 && len(sh) == 4 && sh[1] == d.room { // keys and values: the places that are not yet used need not move
			size = size / d.room * min(most, d.room)
		}
		if err := d.edit(name, func(t *tensor.Tensor) { d.permute(t, from, size) }); err != nil {
			return err
		}
	}
	return nil
}

// edit lets f change a variable, where it lies if the state is in the host's memory.
func (d *Decoder) edit(name string, f func(t *tensor.Tensor)) error {
	if h, ok := d.m.state.(*backend.Host); ok {
		return h.Edit(name, f)
	}
	t, err := d.m.state.Get(name)
	if err != nil {
		return err
	}
	f(t)
	return d.m.state.Set(name, t)
}

// permute gives row i of t the first bytes, so many as size says, of what row from[i] was. Only rows that move are copied, and set aside only those that are written over before they have been read.
func (d *Decoder) permute(t *tensor.Tensor, from []int, size int) {
	if cap(d.aside) < size*len(from) {
		d.aside = make([]byte, size*len(from))
	}
	for i, f := range from {
		if f < i && from[f] != f {
			copy(d.aside[f*size:(f+1)*size], row(t, f)[:size])
		}
	}
	for i, f := range from {
		switch {
		case f == i:
		case f < i && from[f] != f:
			copy(row(t, i), d.aside[f*size:(f+1)*size])
		default:
			copy(row(t, i), row(t, f)[:size])
		}
	}
}

// alike reports whether every row of t is what the row is that takes its place.
func alike(t *tensor.Tensor, from []int) bool {
	for i, f := range from {
		if i != f && !bytes.Equal(row(t, i), row(t, f)) {
			return false
		}
	}
	return true
}

// growing builds the graph of a decoder's program.
func (m *Model) growing(g *graph.Graph, k programKey, tap func(l *nn.Layer, x []*graph.Node)) *nn.Call {
	input, err := m.growingInput()
	if err != nil {
		g.Fail("model", nil, "%v", err)
	}
	var x []*graph.Node
	for i, t := range fieldTypes(m.Spec.Inputs, k.batch) {
		if i == input {
			t = graph.T(dtype.I32, k.batch, k.time)
		}
		x = append(x, g.Input(fmt.Sprintf("x%d", i), t))
	}
	numbers := func(name string) *graph.Node { return g.Input(name, graph.T(dtype.I32, k.batch)) }
	cache := &nn.Cache{Name: fmt.Sprintf("%dx%d", k.batch, k.room), Room: k.room, Ring: k.ring, Lengths: numbers("lengths"), Input: input, Begin: k.begin}
	if k.ragged {
		cache.Counts = numbers("counts")
	}
	call := &nn.Call{G: g, Wrap: m.wrap(), Change: m.change(), Operand: m.operand(), Cache: cache, Tap: tap}
	if k.split {
		call.Split = m.split()
	}
	out := m.Net.Call(call, x)
	if len(out) != 1 || len(out[0].Shape()) != 3 || out[0].Shape()[1] != k.time {
		g.Fail("model", out, "gives no scores for each position of the sequence, so it cannot go on with one")
	}
	y := out[0]
	if scores, ok := logits(y); ok {
		y = scores
	}
	s := y.Shape()
	if k.ragged { // of each sequence's own last position
		row := op.Iota(g, graph.T(dtype.I32, k.batch), 0)
		at := op.Add(op.Mul(row, op.Like(row, float64(k.time))), op.Max(op.Sub(cache.Counts, op.Like(row, 1)), op.Like(row, 0)))
		y = op.Gather(op.Reshape(y, k.batch*k.time, s[2]), at, 0)
	} else {
		y = op.Reshape(op.SliceAxis(y, 1, k.time-1, k.time), s[0], s[2])
	}
	if ends := call.Scores; ends != nil { // only those of the last positions travel
		y = (&partScores{Scores: &nn.Scores{Part: y, Lo: ends.Lo, Hi: ends.Hi, Of: ends.Of}, split: call.Split}).whole()
	}
	g.Output("scores", y)
	if k.top > 0 {
		best, tokens := op.TopK(op.LogSoftmax(y), min(k.top, y.Shape()[1]))
		g.Output("top", best)
		g.Output("top tokens", tokens)
	}
	return call
}

// program1 is program for a key.
func (m *Model) program1(k programKey) (*program, error) {
	if p := m.programs[k]; p != nil {
		return p, nil
	}
	p, err := m.build(k, false)
	if err != nil {
		return nil, err
	}
	input, err := m.growingInput()
	if err != nil {
		return nil, err
	}
	p.in[input] = tensor.New(dtype.I32, k.batch, k.time)
	m.programs[k] = p
	return p, nil
}

// kept are the variables that belong to the model and its training: those of decoders, of a teacher and of streams that are only predicted do not.
func (m *Model) kept() []backend.Var {
	var out []backend.Var
	for _, v := range m.state.Vars() {
		w, carried := nn.Carried(v.Name)
		if nn.Cached(v.Name) || strings.HasPrefix(v.Name, teacherPrefix) && !m.teachesItself() || carried && strings.HasPrefix(w, carryInfer) {
			continue
		}
		out = append(out, v)
	}
	return out
}
