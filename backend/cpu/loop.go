package cpu

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

func init() { rows[op.LoopOp] = []row{{name: "loop", make: makeLoop}} }

// body is a graph without variables, compiled to run inside a step of another program. Its inputs and outputs lie wherever they are bound before a run.
type body struct {
	*exec
	outs []bodyOut
}

// bodyOut is the place of an output. An output that a kernel makes is made there; one that is an input, a constant or an earlier output is copied.
type bodyOut struct {
	from   *buf
	copied bool
	to     []byte // where it is copied
}

// compileBody applies this backend's passes to g and compiles it.
func compileBody(g *graph.Graph, k *call) (*body, error) {
	opt, err := pass.Apply(g, Passes()...)
	if err != nil {
		return nil, err
	}
	host, err := backend.NewHost(nil)
	if err != nil {
		return nil, err
	}
	c := &compiler{e: &exec{g: opt, sig: g, pool: k.pool}, g: opt, host: host, bufs: make([][]*buf, len(opt.Nodes())), live: opt.Live(), bound: true}
	if err := c.compile(); err != nil {
		return nil, err
	}
	k.scratch += c.e.bytes
	b := &body{exec: c.e}
	made := map[*buf]bool{}
	for _, o := range opt.Outputs() {
		r := c.root(c.bufs[o.Node.ID()][0])
		b.outs = append(b.outs, bodyOut{from: c.bufs[o.Node.ID()][0], copied: !r.bound || made[r]})
		if !b.outs[len(b.outs)-1].copied {
			b.outs[len(b.outs)-1].from = r
		}
		made[r] = true
	}
	return b, nil
}

// bind says where output i goes at the next run.
func (b *body) bind(i int, to []byte) {
	o := &b.outs[i]
	if o.to = to; !o.copied {
		o.from.raw = to
	}
}

func (b *body) run() {
	for _, f := range b.follow {
		f.to.raw = f.from.raw
	}
	for i := range b.steps {
		b.steps[i].run()
	}
	for _, o := range b.outs {
		if o.copied {
			copy(o.to, o.from.raw)
		}
	}
}

// loopRun is a compiled loop.
type loopRun struct {
	op.LoopAttrs
	body, cond *body
	in, out    []*buf
	state      [][]byte // where the state is
	spare      [][]byte // the state is made in a result and here by turns
	goOn       [1]byte
}

func makeLoop(k *call) (string, func(), error) {
	l := &loopRun{LoopAttrs: k.n.Attrs().(op.LoopAttrs), in: k.in, out: k.out}
	var err error
	if l.body, err = compileBody(l.Body, k); err != nil {
		return "", nil, fmt.Errorf("body: %w", err)
	}
	if l.Cond != nil {
		if l.cond, err = compileBody(l.Cond, k); err != nil {
			return "", nil, fmt.Errorf("condition: %w", err)
		}
	}
	l.state = make([][]byte, l.Carried)
	for j := range l.Carried {
		n := k.in[j].t.Bytes()
		l.spare = append(l.spare, tensor.AlignedBytes(n))
		k.scratch += int64(n)
	}
	name := fmt.Sprintf("loop of %d kernels", len(l.body.steps))
	for _, s := range l.body.steps {
		if strings.Contains(s.Kernel, "reference") {
			name += " (some on the reference)"
			break
		}
	}
	return name, l.run, nil
}

func (l *loopRun) run() {
	for j := range l.state {
		l.state[j] = l.in[j].raw
	}
	made := len(l.Body.Outputs())
	for i := range l.Steps {
		if l.cond != nil && !l.goesOn() {
			break
		}
		t := i
		if l.Reverse {
			t = l.Steps - 1 - i
		}
		for j, x := range l.in {
			switch b := l.body.ins[j]; {
			case j < l.Carried:
				b.raw = l.state[j]
			case j < l.Carried+l.Scanned:
				b.raw = x.raw[t*b.t.Bytes():][:b.t.Bytes()]
			default:
				b.raw = x.raw
			}
		}
		if l.Save {
			for j, s := range l.state {
				copy(l.out[made+j].raw[t*len(s):], s)
			}
		}
		for j, y := range l.out[:made] {
			to := y.raw
			switch n := l.Body.Outputs()[j].Node.Type().Bytes(); {
			case j >= l.Carried:
				to = to[t*n:][:n]
			case (l.Steps-i)%2 == 0: // the last of all steps makes the result
				to = l.spare[j]
			}
			l.body.bind(j, to)
		}
		l.body.run()
		for j := range l.state {
			l.state[j] = l.body.outs[j].to
		}
	}
	for j, s := range l.state {
		if y := l.out[j].raw; len(y) > 0 && &y[0] != &s[0] {
			copy(y, s)
		}
	}
}

// goesOn runs the condition on the state.
func (l *loopRun) goesOn() bool {
	for j, b := range l.cond.ins {
		if b.raw = l.in[j].raw; j < l.Carried {
			b.raw = l.state[j]
		}
	}
	l.cond.bind(0, l.goOn[:])
	l.cond.run()
	return l.goOn[0] != 0
}
