package train

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Decoder lets sequences grow: it feeds tokens to a language model and keeps what the model needs of those before (the keys and values of attention), so that a
// token costs the same work whether it is the second or the thousandth, attention's share aside. All sequences have the same length. A model has one Decoder in use at a time for
// each number of sequences and room.
type Decoder struct {
	m               *Model
	sequences, room int
	length          int
	lengths         *tensor.Tensor
}

// chunks are how many tokens of a sequence a program takes at once, greatest first: the last must be 1.
var chunks = []int{64, 8, 1}

// Decoder makes a decoder of so many sequences with room for so many tokens each. The model must take a sequence of tokens i32 and give scores or
// probabilities of the next token at each position, and no position may see later ones.
func (m *Model) Decoder(sequences, room int) (*Decoder, error) {
	if in := m.Spec.Inputs; len(in) != 1 || in[0].DType != dtype.I32 || len(in[0].Shape) != 1 {
		return nil, fmt.Errorf("train: the model takes no sequence of tokens, so it cannot go on with one")
	}
	if sequences < 1 || room < 1 {
		return nil, fmt.Errorf("train: a decoder of %d sequences with room for %d tokens: both must be at least 1", sequences, room)
	}
	d := &Decoder{m: m, sequences: sequences, room: room, lengths: tensor.New(dtype.I32, sequences)}
	if _, err := m.program1(d.key(1)); err != nil { // mistakes show now
		return nil, err
	}
	return d, nil
}

func (d *Decoder) key(time int) programKey {
	k := programKey{mode: decode, batch: d.sequences, time: time, room: d.room}
	if time > 1 {
		k.mode = prefill
	}
	return k
}

// Len is the number of tokens of each sequence.
func (d *Decoder) Len() int { return d.length }

// Room is the number of tokens that there is room for.
func (d *Decoder) Room() int { return d.room }

// Reset makes the sequences empty.
func (d *Decoder) Reset() { d.length = 0 }

// Feed appends tokens [sequences, n], n at least 1, and gives the scores [sequences, vocabulary] of what comes next: logarithms of probabilities up to a constant
// where the model ends in a softmax, else what it gives. They are overwritten by the next call.
func (d *Decoder) Feed(tokens []int32) (*tensor.Tensor, error) {
	n := len(tokens) / d.sequences
	if n == 0 || n*d.sequences != len(tokens) {
		return nil, fmt.Errorf("train: %d tokens are no multiple, from 1 on, of %d sequences", len(tokens), d.sequences)
	}
	if d.length+n > d.room {
		return nil, fmt.Errorf("train: %d tokens and %d more are above the decoder's room for %d", d.length, n, d.room)
	}
	var p *program
	for at := 0; at < n; {
		time := 1
		for _, c := range chunks {
			if c <= n-at {
				time = c
				break
			}
		}
		var err error
		if p, err = d.m.program1(d.key(time)); err != nil {
			return nil, err
		}
		x := p.in[0].I32()
		for s := range d.sequences {
			copy(x[s*time:(s+1)*time], tokens[s*n+at:])
		}
		d.length += time
		at += time
		for i := range d.lengths.I32() {
			d.lengths.I32()[i] = int32(d.length)
		}
		p.in[1] = d.lengths
		if err := p.exec.Run(p.in, p.out); err != nil {
			return nil, err
		}
	}
	return p.out[0], nil
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
	p, err := d.m.program1(d.key(1))
	if err != nil {
		return err
	}
	for _, v := range p.g.Variables() {
		name := graph.NameOf(v)
		if !nn.Cached(name) {
			continue
		}
		old, err := d.m.state.Get(name)
		if err != nil {
			return err
		}
		now := old.Clone()
		row := len(old.Bytes()) / d.sequences
		for i, f := range from {
			copy(now.Bytes()[i*row:(i+1)*row], old.Bytes()[f*row:(f+1)*row])
		}
		if err := d.m.state.Set(name, now); err != nil {
			return err
		}
	}
	return nil
}

// growing builds the graph of a decoder's program.
func (m *Model) growing(g *graph.Graph, k programKey) *nn.Call {
	x := g.Input("x0", graph.T(dtype.I32, k.batch, k.time))
	call := &nn.Call{G: g, Wrap: m.wrap(), Operand: m.operand(), Cache: &nn.Cache{
		Name: fmt.Sprintf("%dx%d", k.batch, k.room), Room: k.room, Lengths: g.Input("lengths", graph.T(dtype.I32, k.batch)),
	}}
	out := m.Net.Call(call, []*graph.Node{x})
	if len(out) != 1 || len(out[0].Shape()) != 3 || out[0].Shape()[1] != k.time {
		g.Fail("model", out, "gives no scores for each position of the sequence, so it cannot go on with one")
	}
	y := out[0]
	if scores, ok := logits(y); ok {
		y = scores
	}
	s := y.Shape()
	g.Output("scores", op.Reshape(op.SliceAxis(y, 1, k.time-1, k.time), s[0], s[2]))
	return call
}

// program1 is program for a key, with its variables declared.
func (m *Model) program1(k programKey) (*program, error) {
	if p := m.programs[k]; p != nil {
		return p, nil
	}
	g, _, err := m.graph(k)
	if err != nil {
		return nil, err
	}
	for _, v := range g.Variables() {
		if name := graph.NameOf(v); nn.Cached(name) {
			if err := m.state.Add(backend.Var{Name: name, Type: v.Type()}); err != nil {
				return nil, err
			}
		}
	}
	p, err := m.build(k, false)
	if err != nil {
		return nil, err
	}
	p.in[0] = tensor.New(dtype.I32, k.batch, k.time)
	m.programs[k] = p
	return p, nil
}

// kept are the variables that belong to the model: those of decoders and of a teacher do not.
func (m *Model) kept() []backend.Var {
	var out []backend.Var
	for _, v := range m.state.Vars() {
		if !nn.Cached(v.Name) && !strings.HasPrefix(v.Name, teacherPrefix) {
			out = append(out, v)
		}
	}
	return out
}
