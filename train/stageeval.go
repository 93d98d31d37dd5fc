package train

import (
	"fmt"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// Evaluation and prediction through the stages of a pipeline: batches go one after another, each stage computes one while the next computes the one before. The last stage has the results.

// evaluator is a stage's program for batches of one shape.
type evaluator struct {
	s     *stageGraph
	p     *program
	taken []*tensor.Tensor
	outs  [2][]*tensor.Tensor // used by turns: one may be on its way
	posts [2][]*dist.Posted
	turn  int
}

// turn is which of so many sets of batches this rank evaluates: its own, or those of the stages, or of the row, that it belongs to.
func (m *Model) turn() (i, of int) {
	switch {
	case m.pipe != nil:
		return m.pipe.copy, m.pipe.copies
	case m.inParts():
		return m.team.at, m.team.rows
	}
	return m.parallel.rank(), m.parallel.ranks()
}

// results is the set of batches of which a rank has the results; ok is false of stages that end in another, and of all ranks of a row but the first.
func (m *Model) results(rank int) (turn int, ok bool) {
	switch {
	case m.pipe != nil:
		return rank / m.pipe.stages, rank%m.pipe.stages == m.pipe.stages-1
	case m.inParts():
		return rank / m.team.copies, rank%m.team.copies == 0
	}
	return rank, true
}

// through runs a program on a batch. The program is nil where its results are another rank's.
func (m *Model) through(k mode, b *data.Batch) (*program, error) {
	if m.pipe != nil {
		return m.pipe.through(k, b)
	}
	p, err := m.programOf(programKey{mode: k, batch: b.N, shapes: m.shapes(b.X, b.Y), split: m.inParts()})
	if err != nil {
		return nil, err
	}
	if err := p.run(b.X, b.Y, 0); err != nil || !p.key.split {
		return p, err
	}
	if err := m.met(p); err != nil {
		return nil, err
	}
	if _, ok := m.results(m.parallel.rank()); !ok {
		return nil, nil
	}
	return p, nil
}

func (l *pipeline) evaluator(k programKey) (*evaluator, error) {
	if e := l.evaluators[k]; e != nil {
		return e, nil
	}
	c, err := l.cutting(k)
	if err != nil {
		return nil, err
	}
	e := &evaluator{}
	if e.s, err = l.stageGraph(c, nil, false); err != nil {
		return nil, err
	}
	x, err := l.m.backend.Compile(e.s.g, l.m.state, backend.Options{Threads: l.m.threads})
	if err != nil {
		return nil, err
	}
	for _, t := range e.s.takes {
		e.taken = append(e.taken, tensor.New(t.DType(), t.Shape()...))
	}
	for i := range e.outs {
		e.outs[i] = backend.NewOutputs(e.s.g)
	}
	e.p = &program{key: k, g: e.s.g, exec: x, in: make([]*tensor.Tensor, len(e.s.inputs))}
	l.evaluators[k], l.m.programs[k] = e, e.p
	return e, nil
}

func (l *pipeline) through(k mode, b *data.Batch) (*program, error) {
	e, err := l.evaluator(programKey{mode: k, batch: b.N, shapes: l.m.shapes(b.X, b.Y)})
	if err != nil {
		return nil, err
	}
	copy(e.p.in, e.taken)
	for i, n := range e.s.inputs[len(e.taken):] {
		name := graph.NameOf(n)
		if name == "y" {
			e.p.in[len(e.taken)+i] = b.Y[0]
			continue
		}
		x := b.X[number(name)]
		if rows := l.rows[name]; rows > 0 && x.DType() == dtype.I32 {
			for at, v := range x.I32() {
				if v < 0 || int(v) >= rows {
					return nil, fmt.Errorf("train: input %s has token %d (element %d of the batch), but the model knows 0 to %d", name, v, at, rows-1)
				}
			}
		}
		e.p.in[len(e.taken)+i] = x
	}
	begun := time.Now()
	for _, t := range e.taken {
		if err := l.row.Recv(l.stage-1, tagForward, t.Bytes()); err != nil {
			return nil, err
		}
	}
	if x := l.m.exchanged; x != nil && len(e.taken) > 0 {
		d := time.Since(begun)
		x.account.waited, x.account.bubble = x.account.waited+d, x.account.bubble+d
	}
	e.turn = 1 - e.turn
	if err := arrive(e.posts[e.turn]); err != nil {
		return nil, err
	}
	e.posts[e.turn] = e.posts[e.turn][:0]
	e.p.out = e.outs[e.turn]
	if err := e.p.exec.Run(e.p.in, e.p.out); err != nil {
		return nil, err
	}
	if l.last() {
		return e.p, nil
	}
	for _, t := range e.p.out {
		p, err := l.post.Post(l.stage+1, tagForward, t.Bytes())
		if err != nil {
			return nil, err
		}
		e.posts[e.turn] = append(e.posts[e.turn], p)
	}
	return nil, nil
}

// number is that of an input of the model: 2 of "x2".
func number(name string) (n int) {
	fmt.Sscanf(strings.TrimPrefix(name, "x"), "%d", &n)
	return n
}

// arrive waits until messages have gone.
func arrive(ps []*dist.Posted) error {
	for _, p := range ps {
		if err := p.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// arrived waits until all that has been handed on in an evaluation has been taken.
func (l *pipeline) arrived() error {
	for _, e := range l.evaluators {
		for i := range e.posts {
			if err := arrive(e.posts[i]); err != nil {
				return err
			}
			e.posts[i] = nil
		}
	}
	return nil
}

// probe is group.probe for a stage: it finds a value in its own layers that is not finite. Stages behind it are given zeros then.
func (l *pipeline) probe(g *group, b *data.Batch) error {
	from, _ := g.piece(b.Of, g.lo)
	if err := g.m.stateInto(seedVar, g.state); err != nil {
		return err
	}
	draw := tensor.Data[int64](g.state)
	var found error
	for s := g.lo; s < g.hi; s++ {
		lo, hi := g.piece(b.Of, s)
		if lo == hi {
			continue
		}
		k, err := l.newLane(g, l.laneKey(b, hi-lo), true)
		if err != nil {
			return err
		}
		k.dead = true
		for _, t := range k.taken {
			if err := l.row.Recv(l.stage-1, tagForward, t.Bytes()); err != nil {
				return err
			}
		}
		k.fill(b, lo-from, hi-from, float64(hi-lo)/float64(b.Of), draw[0], draw[1]+int64(s))
		k.start()
		select {
		case <-k.handed:
			for _, t := range k.values {
				k.post(l.stage+1, tagForward, t)
			}
			err := arrive(k.posts)
			k.abandon()
			if err != nil {
				return err
			}
			continue
		case err := <-k.done:
			if found == nil {
				found = err
			}
		}
		if l.last() {
			continue
		}
		for _, n := range k.s.gives {
			k.post(l.stage+1, tagForward, tensor.New(n.DType(), n.Shape()...))
		}
		if err := arrive(k.posts); err != nil {
			return err
		}
	}
	return found
}
