package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// halves are the programs of a stage on a backend whose programs do not stop; all lanes of a key share them, since nothing stays in them.
type halves struct {
	first, second *program // first is nil in the last stage
	given         *stageGraph
}

// halves gives the lane its two programs.
func (k *lane) halves(stopAtNaN bool) error {
	l := k.l
	h := l.split[k.size]
	if h == nil || stopAtNaN {
		h = &halves{}
		e, err := l.compile(k.s, backend.Options{StopAtNaN: stopAtNaN})
		if err != nil {
			return err
		}
		h.second = &program{key: programKey{mode: shard, batch: k.size.batch, shapes: k.size.shapes, lane: 1}, g: k.s.g, exec: e}
		if !l.last() {
			c, err := l.cutting(k.size)
			if err != nil {
				return err
			}
			once, err := l.stageGraph(c, &op.Link{}, false) // the arithmetic that is asked for
			if err != nil {
				return err
			}
			h.second.g = once.g
			if h.given, err = l.stageGraph(c, nil, false); err != nil {
				return err
			}
			if e, err = l.m.backend.Compile(h.given.g, l.m.state, backend.Options{Threads: l.m.threads, StopAtNaN: stopAtNaN}); err != nil {
				return err
			}
			h.first = &program{key: programKey{mode: shard, batch: k.size.batch, shapes: k.size.shapes, lane: 1, forward: true}, g: h.given.g, exec: e, again: true}
		}
		if !stopAtNaN {
			l.split[k.size] = h
			for _, p := range []*program{h.first, h.second} {
				if p != nil {
					l.m.programs[p.key] = p
				}
			}
		}
	}
	own := *h.second
	k.p, k.outs = &own, backend.NewOutputs(k.s.g)
	k.p.in = make([]*tensor.Tensor, len(k.s.inputs))
	copy(k.p.in, k.taken)
	for i, n := range k.s.inputs {
		if strings.HasPrefix(graph.NameOf(n), arrivedPrefix) {
			k.p.in[i] = tensor.New(n.DType(), n.Shape()...)
			k.arrived = append(k.arrived, k.p.in[i])
		}
	}
	if h.first != nil {
		first := *h.first
		k.first = &first
		k.first.in, k.first.out = make([]*tensor.Tensor, len(h.given.inputs)), backend.NewOutputs(h.given.g)
		copy(k.first.in, k.taken)
		for _, n := range h.given.inputs[len(k.taken):] {
			j := slices.IndexFunc(k.s.inputs, func(o *graph.Node) bool { return o == n || graph.NameOf(o) == graph.NameOf(n) })
			if j < 0 {
				return fmt.Errorf("train: input %s of pipeline stage %d is not one of its backward pass", graph.NameOf(n), l.stage)
			}
			k.alike = append(k.alike, j)
		}
	}
	return nil
}

// both runs the two programs, with the hand-over between them.
func (k *lane) both() error {
	if k.first != nil {
		for i, j := range k.alike {
			k.first.in[len(k.taken)+i] = k.p.in[j]
		}
		if err := k.first.exec.Run(k.first.in, k.first.out); err != nil {
			return err
		}
		k.pass(k.first.out, k.arrived)
		if k.dead {
			return nil
		}
	}
	if err := k.p.exec.Run(k.p.in, k.outs); err != nil {
		return err
	}
	for i, t := range k.outs {
		k.take(i, t.Bytes())
		k.ready(i)
	}
	return nil
}
