package train

import (
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/op"
)

// Account gathers what a model's programs have cost since the last call of StartAccount, as a ledger by layer, op and phase.
type Account struct {
	m     *Model
	start time.Time
	meter energy.Meter
	from  float64
	model energy.Model
}

// StartAccount sets the profiles of all programs to zero and reads the meter (nil: there is none, and energy is estimated).
func (m *Model) StartAccount(meter energy.Meter) (*Account, error) {
	for _, p := range m.programs {
		p.exec.Reset()
	}
	m.retired, m.waited, m.waits, m.evaluated = nil, 0, 0, 0
	if m.exchanged != nil {
		m.exchanged.restart(m)
	}
	a := &Account{m: m, start: time.Now(), meter: meter, model: m.EnergyModel()}
	if meter != nil {
		var err error
		if a.from, err = meter.Joules(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// elsewhere reports whether programs run on a device beside the host's processor.
func (m *Model) elsewhere() bool {
	b, ok := m.backend.(interface{ Platform() string })
	return ok && b.Platform() != "cpu"
}

// EnergyModel is what estimates the energy of the model's programs where no counter does: of the processor that runs them, or, where a device beside it does, of the host alone.
func (m *Model) EnergyModel() energy.Model {
	if m.elsewhere() {
		return energy.Host
	}
	return energy.CPU
}

// Cores is the number of cores that the model's programs use: a backend with threads of its own uses all.
func (m *Model) Cores() int {
	if _, own := m.backend.(interface{ Platform() string }); m.threads > 0 && !own {
		return m.threads
	}
	return par.DefaultThreads()
}

// Ledger closes the account. The time of the run that no node took is a line of phase idle.
func (a *Account) Ledger() (*energy.Ledger, error) {
	l := energy.NewLedger(a.model, min(a.m.Cores(), runtime.NumCPU())) // threads beyond the processor's use no more of it
	for _, p := range a.m.programs {
		a.book(l, p)
	}
	for _, p := range a.m.retired {
		a.book(l, p)
	}
	if a.m.Comm() != nil {
		e := a.m.Exchange()
		l.Book(energy.Key{Op: "waiting for other ranks", Phase: "exchange"}, e.Steps, time.Duration(e.Waiting*1e9), energy.Cost{}, true)
	}
	if a.m.waits > 0 {
		l.Book(energy.Key{Op: "wait for a batch", Phase: "data"}, a.m.waits, a.m.waited, energy.Cost{}, true)
	}
	if rest := a.m.evaluated - phase(l, energy.PhaseEvaluate); rest > 0 {
		l.Book(energy.Key{Op: "outside the graph", Phase: energy.PhaseEvaluate}, 1, rest, energy.Cost{}, true)
	}
	wall := time.Since(a.start)
	if a.meter == nil {
		l.Close(wall, nil)
		return l, nil
	}
	now, err := a.meter.Joules()
	if err != nil {
		return nil, err
	}
	v, source := now-a.from, a.meter.Source()
	if a.m.elsewhere() {
		if !strings.Contains(source.Name, "NVML") {
			source.Name += " of the host; the device is not counted"
		}
	}
	l.Close(wall, &energy.Joules{Value: v, Low: v, High: v, Source: source})
	return l, nil
}

// phase is the time that has been booked for a phase.
func phase(l *energy.Ledger, phase string) time.Duration {
	sum := 0.0
	for _, e := range l.Lines {
		if e.Phase == phase {
			sum += e.Seconds
		}
	}
	return time.Duration(sum * 1e9)
}

// book adds a program's nodes. The arithmetic that the model asks for is counted on the graph before any pass, by layer and phase, and lies on the first executed node of
// each; time, bytes and executed arithmetic are those of the nodes that ran.
func (a *Account) book(l *energy.Ledger, p *program) {
	times := p.exec.Profile()
	calls := runs(times)
	if calls == 0 {
		return
	}
	if p.prices == nil {
		p.price(times)
	}
	for i, t := range times {
		l.SharesPredicted = l.SharesPredicted || t.Predicted
		fits := p.prices[i].Bytes() <= a.model.CacheSize
		book := func(k energy.Key, c energy.Cost, d time.Duration) {
			switch t.Node.Op() {
			case op.HandOverOp, op.AllReduceOp: // they wait: while the first does, other micro-batches are computed, and the second's time is booked as waiting
				d = 0
			}
			ran := c.Times(t.Calls)
			ran.FLOPs = c.FLOPs * calls // what the model asks for does not depend on what a backend keeps from run to run
			l.Book(k, t.Calls, d, ran, fits)
		}
		if p.layers[i] == nil {
			book(p.keys[i], p.prices[i], t.Time)
			continue
		}
		left := t.Time
		for j, s := range p.layers[i] {
			d := time.Duration(float64(t.Time) * s.part)
			if j == len(p.layers[i])-1 {
				d = left
			}
			left -= d
			book(s.key, s.price, d)
		}
	}
	for i := len(times); i < len(p.keys); i++ {
		l.Book(p.keys[i], calls, 0, p.prices[i].Times(calls), true)
	}
}

// runs is how often a program has run: a backend may run some nodes at the first run alone.
func runs(times []backend.NodeTime) (n int64) {
	for _, t := range times {
		n = max(n, t.Calls)
	}
	return n
}

// price finds, once, the ledger's key and the cost of a run of each executed node, and of layers that fusion has left no node of their own: their
// arithmetic runs inside another's.
func (p *program) price(times []backend.NodeTime) {
	type place struct {
		layer string
		phase graph.Phase
	}
	asked := map[place]int64{}
	var order []place
	live := p.g.Live()
	for _, n := range p.g.Nodes() {
		if f := cost.Node(n).FLOPs; live[n.ID()] && f > 0 && !p.again {
			at := place{n.Scope(), n.Phase()}
			if asked[at] == 0 {
				order = append(order, at)
			}
			asked[at] += f
		}
	}
	key := func(at place, op string) energy.Key {
		k := energy.Key{Layer: at.layer, Op: op, Phase: at.phase.String()}
		if p.key.mode >= evaluate {
			k.Phase = p.key.mode.String()
		}
		return k
	}
	p.layers = make([][]layerShare, len(times))
	for i, t := range times {
		at := place{t.Node.Scope(), t.Node.Phase()}
		c := t.Cost()
		for _, s := range layersOf(t.Node) {
			in := place{s.key.Layer, at.phase}
			s.key, s.price = key(in, t.Node.Op().Name), c.Part(s.part)
			s.price.FLOPs = asked[in]
			asked[in] = 0
			p.layers[i] = append(p.layers[i], s)
		}
		c.FLOPs = asked[at]
		asked[at] = 0
		p.keys, p.prices = append(p.keys, key(at, t.Node.Op().Name)), append(p.prices, c)
	}
	for _, at := range order {
		if asked[at] > 0 {
			p.keys, p.prices = append(p.keys, key(at, "fused")), append(p.prices, energy.Cost{FLOPs: asked[at]})
		}
	}
}

// layerShare is a layer's part in a node that serves several.
type layerShare struct {
	key   energy.Key
	part  float64     // of the node's work
	price energy.Cost // of a run
}

// layersOf are the layers that an update of all parameters serves, each by the size of its parameters; nil of other nodes.
func layersOf(n *graph.Node) (out []layerShare) {
	a, ok := n.Attrs().(op.UpdateAttrs)
	if !ok {
		return nil
	}
	total := 0.0
	for in := n.Inputs(); len(in) > 0; in = in[a.Operands():] {
		layer, size := in[1].Scope(), float64(in[0].Shape().Size()) // a gradient is its layer's
		i := slices.IndexFunc(out, func(s layerShare) bool { return s.key.Layer == layer })
		if i < 0 {
			i, out = len(out), append(out, layerShare{key: energy.Key{Layer: layer}})
		}
		out[i].part += size
		total += size
	}
	if total == 0 {
		return nil
	}
	for i := range out {
		out[i].part /= total
	}
	return out
}

// NodeCost is what one executed node of a step costs.
type NodeCost struct {
	energy.Key
	Kernel  string        `json:"kernel"`
	Cost    energy.Cost   `json:"cost"`
	Seconds float64       `json:"seconds"` // mean of a run
	Joules  energy.Joules `json:"energy"`
}

// Moved is how many bytes the transposes of the train step (or of prediction) for a batch size read and write in a run: as the program asks, and as the backend's passes leave them. It is
// 0, 0 where no such step has run, or where the backend does not say.
func (m *Model) Moved(batch int, prediction bool) (asked, left int64) {
	if p := m.stepped(batch, prediction); p != nil {
		if b, ok := p.exec.(backend.Mover); ok {
			return b.Moved()
		}
	}
	return 0, 0
}

// stepped is the program of the train step (or of prediction) for a batch size, nil where none has been made.
func (m *Model) stepped(batch int, prediction bool) *program {
	if prediction {
		return m.programs[programKey{mode: predict, batch: batch}]
	}
	return m.programs[programKey{mode: train, batch: batch, stage: m.stage()}]
}

// NodeCosts are the nodes of the train step (or of prediction) for a batch size, in the order in which they run, with the mean time since the last
// StartAccount. It is nil where no such step has run.
func (m *Model) NodeCosts(batch int, prediction bool) []NodeCost {
	p := m.stepped(batch, prediction)
	if p == nil {
		return nil
	}
	var out []NodeCost
	model := m.EnergyModel()
	times := p.exec.Profile()
	if p.prices == nil {
		p.price(times)
	}
	for i, t := range times {
		if t.Calls == 0 {
			continue
		}
		c := t.Cost()
		c.FLOPs = p.prices[i].FLOPs
		d := t.Time / time.Duration(t.Calls)
		out = append(out, NodeCost{p.keys[i], t.Kernel, c, d.Seconds(), model.Estimate(c, d, m.Cores(), c.Bytes() <= model.CacheSize)})
	}
	return out
}
