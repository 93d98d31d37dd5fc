package train

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Tensor parallelism: Tensor ranks in a row have the same examples, and each computes its part of the layers that nn.Split splits. The loss of a rank counts for 1/Tensor of it, so that losses
// and gradients of all ranks add up to those of the batch, as they do where each rank has examples of its own: nothing else of a step need know.
//
// Of parameters that only such layers use, a rank has its part alone: a variable of the part's shape, its gradient and its optimizer state. Its gradients are added up over the ranks that have the
// same part, those of a column: none where there is one row. Whole parameters are the same on all ranks, and their gradients are added up over all. ZeRO shares out the state of a part over its
// column, and all other state over all ranks. Where other values stand in place of parameters (masks, low-rank changes), parameters are whole on every rank, which takes its part of them in each step.

// team is a rank's place in the grid of those that compute the same examples, a row, and those that have the same parts of layers, a column.
type team struct {
	row, column  *dist.Comm
	copies, rows int // ranks of a row, and of a column
	at           int // this rank's row; its place there is split.Rank
	split        *nn.Split
	plan         *dist.Plan            // of sums over a column
	whole        map[string]graph.Type // the types of the variables of which this rank has a part
}

// copies is how many ranks have the same examples. A process alone has all layers.
func (p *Parallel) copies() int {
	if p.ranks() == 1 {
		return 1
	}
	return max(1, p.Tensor)
}

// rows is how many groups of ranks have other examples than each other.
func (p *Parallel) rows() int { return p.ranks() / p.copies() }

// checkTensor reports settings that do not go together with layers that are split.
func (p *Parallel) checkTensor(m *Model) error {
	n, t := p.ranks(), p.Tensor
	switch {
	case t < 0:
		return fmt.Errorf("train: %d ranks cannot compute together", t)
	case p.copies() == 1:
		return nil
	case n%t != 0:
		return fmt.Errorf("train: groups of %d ranks that compute together (tensor parallelism) do not divide %d ranks: start a multiple of %d", t, n, t)
	case p.Local > 1:
		return fmt.Errorf("train: tensor parallelism cannot be used with %d local steps, in which ranks do not wait for each other", p.Local)
	}
	if why := m.unsplit(); why != "" {
		return errors.New("train: " + why)
	}
	return nil
}

// unsplit is what of the model keeps its layers from being split over ranks; "": nothing.
func (m *Model) unsplit() string {
	switch {
	case m.teacher != nil || m.operand() != nil:
		return "tensor parallelism splits what a teacher or rounded operands would look at: leave out one of the two"
	case m.backend.Name() != "cpu" && m.backend.Name() != "ref":
		return fmt.Sprintf("tensor parallelism over processes is the CPU backend's; backend %s shares work out to devices of its own (--devices)", m.backend.Name())
	}
	return ""
}

// nothingSplit is the error of a model that has nothing to split.
func (m *Model) nothingSplit(ranks int) error {
	return fmt.Errorf("train: no layer of this model can be split over %d ranks: it takes attention or Transformer blocks of which heads and hidden units are multiples of %d, two Dense layers in a row of which the first has such a number of units, or an Embedding, or a last Dense layer with a softmax and a cross-entropy, of %d rows or classes or more; leave tensor parallelism out, and the ranks share examples",
		ranks, ranks, nn.LeastSplit)
}

// together finds this rank's place among those that compute the same examples, whether there is anything to split, and which parameters exist in parts.
func (m *Model) together() error {
	p := &m.parallel
	if err := p.checkTensor(m); err != nil {
		return err
	}
	if p.copies() == 1 {
		return nil
	}
	n, t, me := p.ranks(), p.Tensor, p.rank()
	var row, column []int
	for r := range n {
		if r/t == me/t {
			row = append(row, r)
		}
		if r%t == me%t {
			column = append(column, r)
		}
	}
	d := &team{copies: t, rows: n / t, at: me / t, plan: dist.NewPlan(n/t, n/t), whole: map[string]graph.Type{}}
	var err error
	if d.row, err = p.Comm.Sub(row, channelTensor); err != nil {
		return err
	}
	d.row.Urgent(true) // a step has nothing else to do meanwhile
	if d.column, err = p.Comm.Sub(column, channelColumn); err != nil {
		return err
	}
	d.split = &nn.Split{Rank: me % t, Of: t, Group: &op.Group{Name: "tensor", Join: d.row}, Ends: m.loss.parts != nil}
	m.team = d
	k := programKey{mode: shard, batch: 1}
	if m.fixed {
		k = programKey{mode: predict, batch: 1, split: true}
	}
	if _, _, err := m.graph(k); err != nil {
		return err
	}
	if len(d.split.Layers) == 0 {
		return m.nothingSplit(t)
	}
	if len(m.wraps) == 0 {
		d.split.Parts = d.split.Divisible()
	}
	if m.exchanged == nil { // evaluation waits too
		m.exchanged = &exchanged{}
	}
	return nil
}

// split is this rank's part of layers; nil: whole.
func (m *Model) split() *nn.Split {
	if m.team == nil {
		return nil
	}
	return m.team.split
}

// inParts reports whether parameters exist in parts, one on each rank of a row.
func (m *Model) inParts() bool { return m.team != nil && len(m.team.split.Parts) > 0 }

// paramOf is the parameter that a variable of the optimizer belongs to: "dense/kernel" of "optimizer/dense/kernel/m"; "" of other variables.
func paramOf(variable string) string {
	if v, ok := strings.CutPrefix(variable, accumulatedPrefix); ok {
		return v
	}
	v, ok := strings.CutPrefix(variable, optimizerPrefix)
	if i := strings.LastIndexByte(v, '/'); ok && i >= 0 {
		return v[:i]
	}
	return ""
}

// axis is that along which a variable is cut; ok is false of one that is whole.
func (m *Model) axis(variable string) (axis int, ok bool) {
	if !m.inParts() {
		return 0, false
	}
	if axis, ok = m.team.split.Parts[variable]; !ok {
		axis, ok = m.team.split.Parts[paramOf(variable)]
	}
	return axis, ok
}

// part reports whether this rank has a variable in part.
func (m *Model) part(variable string) bool {
	_, ok := m.axis(variable)
	return ok
}

// ownType is the type of a variable as this rank has it.
func (m *Model) ownType(variable string, t graph.Type) graph.Type {
	if m.team == nil {
		return t
	}
	return m.partType(variable, t, m.team.split.Rank)
}

// partType is the type of a variable as a rank of a row has it.
func (m *Model) partType(variable string, t graph.Type, rank int) graph.Type {
	axis, ok := m.axis(variable)
	if !ok {
		return t
	}
	lo, hi := m.team.split.Part(t.Shape[axis], rank)
	t.Shape = t.Shape.Clone()
	t.Shape[axis] = hi - lo
	return t
}

// put gives a variable a value that is whole, as far as this rank has it.
func (m *Model) put(variable string, whole *tensor.Tensor) error {
	if m.away(variable) {
		return nil
	}
	if !m.part(variable) {
		return m.state.Set(variable, whole)
	}
	if want := m.team.whole[variable]; !graph.TypeOf(whole).Equal(want) {
		return fmt.Errorf("variable %q is %v, was given %v", variable, want, graph.TypeOf(whole))
	}
	return m.state.Set(variable, m.cutOut(variable, whole, m.team.split.Rank))
}

// pieces calls f for each stretch of bytes of a rank's part of a variable, with where they lie in the whole and in the part.
func (m *Model) pieces(variable string, rank int, f func(whole, part, n int)) {
	t := m.team.whole[variable]
	axis, _ := m.axis(variable)
	lo, hi := m.team.split.Part(t.Shape[axis], rank)
	each := t.Shape[axis+1:].Size() * t.DType.Size()
	n, all := (hi-lo)*each, t.Shape[axis]*each
	for i := range t.Shape[:axis].Size() {
		f(i*all+lo*each, i*n, n)
	}
}

// cutOut is a rank's part of a whole variable.
func (m *Model) cutOut(variable string, whole *tensor.Tensor, rank int) *tensor.Tensor {
	t := m.partType(variable, m.team.whole[variable], rank)
	out := tensor.New(t.DType, t.Shape...)
	from, to := whole.Bytes(), out.Bytes()
	m.pieces(variable, rank, func(w, p, n int) { copy(to[p:p+n], from[w:]) })
	return out
}

// placeIn puts a rank's part, as bytes, into a whole variable.
func (m *Model) placeIn(variable string, whole *tensor.Tensor, rank int, part []byte) {
	to := whole.Bytes()
	m.pieces(variable, rank, func(w, p, n int) { copy(to[w:w+n], part[p:]) })
}

// wholeOf is a variable in one piece. All ranks of a row must call it.
func (m *Model) wholeOf(variable string) (*tensor.Tensor, error) {
	v, err := m.state.Get(variable)
	if err != nil || !m.part(variable) {
		return v, err
	}
	d, t := m.team, m.team.whole[variable]
	all, err := d.row.GatherTexts(v.Bytes())
	if err != nil {
		return nil, err
	}
	out := tensor.New(t.DType, t.Shape...)
	for r, part := range all {
		m.placeIn(variable, out, r, part)
	}
	return out, nil
}

// gatherParts brings the parts of variables to rank 0, which puts them together.
func (m *Model) gatherParts(whole map[string]*tensor.Tensor) error {
	d := m.team
	if d.at > 0 {
		return nil
	}
	var room []byte // of the part that comes
	for _, v := range m.declared {
		if !m.part(v.Name) || m.zeroed(v.Name) {
			continue
		}
		own, err := m.inPlace(backend.Var{Name: v.Name, Type: m.ownType(v.Name, v.Type)})
		if err != nil {
			return err
		}
		if d.split.Rank > 0 {
			if err := d.row.Send(0, tagState, own.Bytes()); err != nil {
				return err
			}
			continue
		}
		t := tensor.New(v.Type.DType, v.Type.Shape...)
		m.placeIn(v.Name, t, 0, own.Bytes())
		for r := 1; r < d.copies; r++ {
			n := m.partType(v.Name, v.Type, r).Bytes()
			if n > len(room) {
				room = make([]byte, n)
			}
			part := room[:n]
			if err := d.row.Recv(r, tagState, part); err != nil {
				return err
			}
			m.placeIn(v.Name, t, r, part)
		}
		whole[v.Name] = t
	}
	return nil
}

// inPlace is a variable where it lies, to be read at once, if the state is in this process's memory.
func (m *Model) inPlace(v backend.Var) (*tensor.Tensor, error) {
	if h, ok := m.state.(*backend.Host); ok {
		if t := h.Tensor(v); t != nil {
			return t, nil
		}
	}
	return m.state.Get(v.Name)
}

// spreadParts gives the ranks of the first row their parts of the variables that rank 0 has whole.
func (m *Model) spreadParts(whole map[string]*tensor.Tensor) error {
	d := m.team
	if d.at > 0 {
		return nil
	}
	for _, v := range m.declared {
		if !m.part(v.Name) || m.zeroed(v.Name) {
			continue
		}
		if d.split.Rank > 0 {
			t := m.ownType(v.Name, v.Type)
			own := tensor.New(t.DType, t.Shape...)
			if err := d.row.Recv(0, tagState, own.Bytes()); err != nil {
				return err
			}
			if err := m.state.Set(v.Name, own); err != nil {
				return err
			}
			continue
		}
		t := whole[v.Name]
		if t == nil {
			return fmt.Errorf("train: variable %q, of which each rank has a part, is missing on rank 0", v.Name)
		}
		if err := m.put(v.Name, t); err != nil {
			return fmt.Errorf("train: %w", err)
		}
		for r := 1; r < d.copies; r++ {
			if err := d.row.Send(r, tagState, m.cutOut(v.Name, t, r).Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// errParts is what programs of the whole model give on a rank that has a part of its weights.
var errParts = errors.New("train: weights of layers are shared out over ranks (tensor parallelism): Fit, Evaluate and Predict work so, and of a model that is Fixed PredictBatch and Decoder; all else needs the whole model (Assemble, or load its file)")

// apart is the error of what needs the whole model where this rank has a part of it.
func (m *Model) apart() error {
	switch {
	case m.pipe != nil:
		return errStages
	case m.inParts():
		return errParts
	}
	return nil
}

// piece is the part of n examples that shard s has.
func (g *group) piece(n, s int) (lo, hi int) { return dist.Part(n, s, g.Shards) }

// groups are the ranks that a step's program joins.
func (g *group) groups() (out []*op.Group) {
	if g.norms != nil {
		out = append(out, g.norms)
	}
	if s := g.m.split(); s != nil {
		out = append(out, s.Group)
	}
	return out
}

// joined is the error of a message within the program that has just run. It books how long the messages have taken.
func (g *group) joined() error {
	for _, j := range g.groups() {
		g.exchanged.within(j)
		if err := j.Err(); err != nil {
			return err
		}
	}
	return nil
}

// met is the error of a message within a program outside of training that has just run, whose time it books.
func (m *Model) met(p *program) error {
	if !p.key.split {
		return nil
	}
	j := m.team.split.Group
	m.exchanged.within(j)
	return j.Err()
}

// within books the time of messages within a program.
func (x *exchanged) within(j *op.Group) {
	d := j.Took()
	x.account.waited, x.account.within = x.account.waited+d, x.account.within+d
}
