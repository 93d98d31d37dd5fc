package train

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// Adapting a trained model: weights from elsewhere, parameters that stay or that learn at another rate, values put in place of parameters, and a teacher.

// Unmatched is an error about the first pattern that matches none of the names, which are those of a kind of things, such as "layer"; nil where each matches one.
func Unmatched(kind string, patterns, names []string) error {
	for _, p := range patterns {
		if !slices.ContainsFunc(names, func(n string) bool { return Matches(p, n) }) {
			return fmt.Errorf("no %s matches %q; %ss: %s", kind, p, kind, strings.Join(names, ", "))
		}
	}
	return nil
}

// Matches reports whether a parameter's name fits a pattern: the whole name, the name of its layer or of a part of it ("block/attention"), or a pattern in which * stands for any
// letters, slashes included.
func Matches(pattern, name string) bool {
	if name == pattern || strings.HasPrefix(name, pattern+"/") {
		return true
	}
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return false
	}
	if !strings.HasPrefix(name, parts[0]) {
		return false
	}
	name = name[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(name, p)
		if i < 0 {
			return false
		}
		name = name[i+len(p):]
	}
	return strings.HasSuffix(name, last)
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return Matches(p, name) })
}

// Fixed makes a model for prediction alone: no parameter is trained, and there is no optimizer state.
func Fixed() Option { return option(func(m *Model) { m.fixed = true }) }

type rateFactor struct {
	pattern string
	factor  float64
}

// RateFactor multiplies the learning rate of the parameters that match the pattern. Of several patterns that match, the last given counts.
func RateFactor(pattern string, factor float64) Option {
	return option(func(m *Model) { m.rates = append(m.rates, rateFactor{pattern, factor}) })
}

func (m *Model) rateFactor(param string) float64 {
	for i := len(m.rates) - 1; i >= 0; i-- {
		if Matches(m.rates[i].pattern, param) {
			return m.rates[i].factor
		}
	}
	return 1
}

// check reports patterns that match nothing, and settings that make no sense.
func (m *Model) checkAdapted() error {
	var names []string
	for _, p := range m.params {
		names = append(names, p.Name)
	}
	known := func(what, pattern string) error {
		if err := Unmatched("parameter", []string{pattern}, names); err != nil {
			return fmt.Errorf("train: %s: %w", what, err)
		}
		return nil
	}
	if err := m.checkFrozen(known); err != nil {
		return err
	}
	for _, r := range m.rates {
		if err := known("rate factor", r.pattern); err != nil {
			return err
		}
		if !(r.factor > 0) || r.factor-r.factor != 0 {
			return fmt.Errorf("train: the rate factor %g of %q must be a positive number; to leave parameters as they are, freeze them", r.factor, r.pattern)
		}
	}
	return nil
}

// Wrapper puts another value in the place of parameters; see nn.Call.Wrap. Merge makes the values permanent.
type Wrapper interface {
	// Wrap gives what layers use for the parameter p with value w: w itself for parameters that it leaves alone.
	Wrap(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node
	// Freezes reports whether a parameter is not to be trained itself.
	Freezes(p nn.Param) bool
}

// OperandWrapper is a Wrapper that also puts other values in the place of layers' operands; see nn.Call.Operand. Merge does not make these permanent.
type OperandWrapper interface {
	Wrapper
	Operand(c *nn.Call, l *nn.Layer, i int, x *graph.Node) *graph.Node
}

// Changer is a Wrapper that also changes matrices of few bits, which have no value that another could be put in the place of; see nn.Call.Change. Merge makes them matrices of floats.
type Changer interface {
	Wrapper
	// Change gives f32 matrices whose product is added to the matrix of the parameter p, which stays as it is; none for parameters that it leaves alone.
	Change(c *nn.Call, p nn.Param) []*graph.Node
}

// changer is the first wrapper that changes a parameter of few bits, with its matrices.
func (m *Model) changer(c *nn.Call, p nn.Param) []*graph.Node {
	for _, w := range m.wraps {
		if x, ok := w.(Changer); ok {
			if out := x.Change(c, p); len(out) > 0 {
				return out
			}
		}
	}
	return nil
}

// change is nn.Call.Change of all wrappers, nil if there are none.
func (m *Model) change() func(c *nn.Call, p nn.Param, w func() *graph.Node) []*graph.Node {
	if len(m.wraps) == 0 {
		return nil
	}
	return func(c *nn.Call, p nn.Param, _ func() *graph.Node) []*graph.Node { return m.changer(c, p) }
}

// operand is nn.Call.Operand of all wrappers, nil if none has one.
func (m *Model) operand() func(c *nn.Call, l *nn.Layer, i int, x *graph.Node) *graph.Node {
	var all []OperandWrapper
	for _, w := range m.wraps {
		if o, ok := w.(OperandWrapper); ok {
			all = append(all, o)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return func(c *nn.Call, l *nn.Layer, i int, x *graph.Node) *graph.Node {
		for _, o := range all {
			x = o.Operand(c, l, i, x)
		}
		return x
	}
}

// Wrapped makes a wrapper part of the model. Several apply in the order given.
func Wrapped(w Wrapper) Option { return option(func(m *Model) { m.wraps = append(m.wraps, w) }) }

func (m *Model) wrap() func(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node {
	if len(m.wraps) == 0 {
		return nil
	}
	return func(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node {
		own := len(c.Params) - 1
		for _, x := range m.wraps {
			w = x.Wrap(c, p, w)
			if x.Freezes(p) {
				c.Params[own].Trainable = false
			}
		}
		return w
	}
}

// Merge gives parameters the values that wrappers have put in their place, and removes the wrappers: what remains is an ordinary model that predicts the same. Matrices of few bits that
// have been changed become floats; their operands are then no longer rounded to 8 bits, so predictions are the same but for that. With Parallel.Zero all ranks must call it.
func (m *Model) Merge() error {
	if len(m.wraps) == 0 {
		return nil
	}
	var names, floats []string
	x, _ := m.Spec.Tensors(1)
	out, err := m.once(x, func(g *graph.Graph, call *nn.Call) {
		call.Operand = nil // values of parameters do not depend on operands
		wrap := call.Wrap
		call.Wrap = func(c *nn.Call, p nn.Param, w *graph.Node) *graph.Node {
			y := wrap(c, p, w)
			if y != w {
				g.Output(p.Name, y)
				names = append(names, p.Name)
			}
			return y
		}
		call.Change = func(c *nn.Call, p nn.Param, w func() *graph.Node) []*graph.Node {
			factors := m.changer(c, p)
			if len(factors) == 0 {
				return nil
			}
			change := factors[0]
			for _, f := range factors[1:] {
				change = op.MatMul(change, f)
			}
			g.Output(p.Name, op.Add(w(), op.Reshape(change, p.Type.Shape...)))
			names, floats = append(names, p.Name), append(floats, p.Name)
			return factors
		}
	})
	if err != nil {
		return err
	}
	net := m.Net
	if len(floats) > 0 {
		if net, err = net.WithFloats(floats...); err != nil {
			return err
		}
	}
	values := map[string]*tensor.Tensor{}
	for i, name := range names {
		values[name] = out[i]
	}
	m.wraps, m.merged = nil, true
	return m.become(net, values)
}

// Reformat puts a net with matrices of weights in other formats (nn.Model.WithFormats) in the place of the model's. All else of the model stays: settings, wrappers, and the values of variables of the same
// name and type; values has those of the others.
func (m *Model) Reformat(net *nn.Model, values map[string]*tensor.Tensor) error {
	if err := m.apart(); err != nil {
		return err
	}
	if m.parallel.zeroStage() > 0 {
		return errors.New("train: the optimizer's state is shared out over ranks: the model's matrices cannot get another format then")
	}
	return m.become(net, values)
}

func (m *Model) become(net *nn.Model, values map[string]*tensor.Tensor) error {
	if err := m.Unshare(); err != nil { // the parts of ranks may be others afterwards
		return err
	}
	old, whole := m.state, m.unshared
	for _, p := range m.programs { // accounts still count what they have cost
		m.retired = append(m.retired, p)
	}
	m.Net, m.programs, m.declared, m.shared, m.unshared = net, map[programKey]*program{}, nil, nil, nil
	if err := m.declare(); err != nil {
		return err
	}
	for _, v := range m.state.Vars() {
		want := v.Type
		switch {
		case m.zeroed(v.Name):
			continue
		case m.part(v.Name):
			want = m.team.whole[v.Name]
		case m.sharded(v.Name):
			continue
		}
		t := values[v.Name]
		if t == nil {
			var err error
			if t, err = old.Get(v.Name); err != nil || !graph.TypeOf(t).Equal(want) {
				continue
			}
		}
		if err := m.put(v.Name, t); err != nil {
			return err
		}
	}
	if whole != nil {
		m.unshared = map[string]*tensor.Tensor{}
		for _, v := range m.declared {
			if !m.sharded(v.Name) {
				continue
			}
			t := whole[v.Name]
			if t == nil || !graph.TypeOf(t).Equal(v.Type) {
				t = tensor.New(v.Type.DType, v.Type.Shape...)
			}
			m.unshared[v.Name] = t
		}
	}
	return m.reshare()
}

// LoadWeights copies the parameters that match one of the patterns (none: all) from a model file, as far as it has them with the same name and shape, and says which were
// taken and which of the model's were left as they are. To take none is an error.
func (m *Model) LoadWeights(path string, patterns ...string) (taken, left []string, err error) {
	s, err := checkpoint.Load(path)
	if err != nil {
		return nil, nil, err
	}
	return m.Take(s, path, patterns...)
}

// Take is LoadWeights of a model that has been read; path names it in errors.
func (m *Model) Take(s *checkpoint.State, path string, patterns ...string) (taken, left []string, err error) {
	for _, p := range m.params {
		t := s.Tensor(p.Name)
		if t == nil || !graph.TypeOf(t).Equal(p.Type) || len(patterns) > 0 && !matchesAny(patterns, p.Name) {
			left = append(left, p.Name)
			continue
		}
		if err := m.put(p.Name, t); err != nil {
			return nil, nil, fmt.Errorf("train: %s: %w", path, err)
		}
		taken = append(taken, p.Name)
	}
	if len(taken) == 0 {
		const most = 20
		var have []string
		why := ""
		for _, t := range s.Tensors {
			if forTraining(t.Name) {
				continue
			}
			have = append(have, t.Name+t.Value.Shape().String())
			if t.Value.DType().IsInt() && m.has(t.Name) {
				why = fmt.Sprintf(" (its %s is of few bits: take the model of floats that it was made of)", t.Name)
			}
		}
		if more := len(have) - most; more > 0 {
			have = append(have[:most], fmt.Sprintf("and %d more", more))
		}
		return nil, nil, fmt.Errorf("train: %s has no parameter of the same name and shape as one of this model's%s%s; it has %s", path, map[bool]string{true: " that matches"}[len(patterns) > 0], why, strings.Join(have, ", "))
	}
	return taken, left, nil
}

// Teacher is a trained model whose predictions another one learns from: knowledge distillation (Hinton, Vinyals & Dean, arXiv:1503.02531). The loss becomes
//
//	(1-Weight)·loss + Weight·T²·KL(softmax(teacher/T) ‖ softmax(student/T))
//
// with the scores of both models, which must end in a softmax over the same classes.
type Teacher struct {
	Model       *Model
	Temperature float64
	Weight      float64
	Hints       []Hint

	// Cached says that the data has the teacher's predictions as its second target (transfer.Predictions): Model is nil, and the teacher has run once for the whole training.
	Cached bool
	// Self makes the model its own teacher, as it was at the end of the epoch before (progressive self-knowledge distillation, arXiv:2006.12000): Model is nil, and the weight grows from 0 in the first epoch
	// to Weight in the last.
	Self bool
}

// Distil makes the model learn from a teacher, which predicts in the same step; what it costs is booked under layer "teacher/…".
func Distil(t Teacher) Option {
	return option(func(m *Model) {
		own := t // what Compile fills in is this model's
		m.teacher = &own
	})
}

const teacherPrefix = "teacher:"

// shareVar is how much a model's own teacher counts in the current epoch.
const shareVar = "teacher-share"

func (t *Teacher) check(m *Model) error {
	switch {
	case t.Cached && t.Self, (t.Cached || t.Self) && t.Model != nil:
		return errors.New("train: a teacher is a model, or its predictions are in the data, or the model is its own: one of the three")
	case (t.Cached || t.Self) && len(t.Hints) > 0:
		return errors.New("train: hints need the layers of a teacher that is another model and predicts in the same step")
	case t.Self && len(m.wraps) > 0:
		return errors.New("train: a model with values in place of parameters (masks, low-rank changes) cannot be its own teacher")
	case t.Self && m.sharing():
		return errors.New("train: a model that is its own teacher cannot be shared out among ranks or shards")
	case !t.Cached && !t.Self && t.Model == nil:
		return errors.New("train: the teacher is missing")
	}
	if t.Model != nil {
		if err := t.checkHints(m); err != nil {
			return err
		}
	}
	switch {
	case !(t.Temperature > 0) || t.Temperature-t.Temperature != 0:
		return fmt.Errorf("train: a teacher's temperature must be a positive number, not %g", t.Temperature)
	case !(t.Weight > 0 && t.Weight <= 1):
		return fmt.Errorf("train: the weight of a teacher must be above 0 and at most 1, not %g", t.Weight)
	case t.Model == nil:
		return nil
	case len(t.Model.Spec.Inputs) != len(m.Spec.Inputs):
		return fmt.Errorf("train: the teacher takes %d inputs, the model %d", len(t.Model.Spec.Inputs), len(m.Spec.Inputs))
	}
	for i, f := range t.Model.Spec.Inputs {
		if g := m.Spec.Inputs[i]; !f.Shape.Equal(g.Shape) || f.DType != g.DType {
			return fmt.Errorf("train: input %d of the teacher is %v%v, of the model %v%v", i, f.DType, f.Shape, g.DType, g.Shape)
		}
	}
	return nil
}

// enter copies the teacher's parameters into the model's state, which has variables for them.
func (t *Teacher) enter(s backend.State) error {
	if t.Model == nil {
		return nil
	}
	if err := copyParams(s, t.Model.state, t.Model.params, teacherPrefix); err != nil {
		return fmt.Errorf("train: the teacher: %w", err)
	}
	return nil
}

// loss adds the teacher's part to a loss of predictions for inputs x; seen are what the student's layers take, for hints.
func (t *Teacher) loss(g *graph.Graph, m *Model, loss, pred *graph.Node, x []*graph.Node, seen *shown) *graph.Node {
	var told *shown
	share := op.Like(loss, t.Weight)
	var scores *graph.Node
	okTeacher := true
	if t.Cached {
		said := g.Input("teacher", pred.Type())
		scores = op.Log(op.Max(said, op.Like(said, 1e-30))) // scores but for a constant
	} else {
		var said *graph.Node
		g.In("teacher", func() {
			call := &nn.Call{G: g, Prefix: teacherPrefix}
			told = t.watch(call)
			net := m.Net
			if t.Self {
				call.Policy = m.precision
				share = g.Variable(shareVar, graph.T(dtype.F32))
			} else {
				net, call.Policy, call.Wrap, call.Change = t.Model.Net, t.Model.precision, t.Model.wrap(), t.Model.change()
			}
			said = net.Call(call, x)[0]
		})
		scores, okTeacher = logits(said)
	}
	student, ok := logits(pred)
	if !ok || !okTeacher {
		g.Fail("teacher", []*graph.Node{pred}, "learning from a teacher needs models that both end in a softmax")
	}
	if !student.Shape().Equal(scores.Shape()) {
		g.Fail("teacher", []*graph.Node{student, scores}, "the teacher gives %v scores, the model %v", scores.Shape(), student.Shape())
	}
	last := len(student.Shape()) - 1
	soft := func(x *graph.Node) *graph.Node { return op.LogSoftmax(op.Mul(x, op.Like(x, 1/t.Temperature))) }
	p, q := op.StopGradient(soft(scores)), soft(student)
	kl := op.MeanAll(op.Sum(op.Mul(op.Exp(p), op.Sub(p, q)), last))
	num := func(v float64) *graph.Node { return op.Like(loss, v) }
	loss = op.Add(op.Mul(loss, op.Sub(num(1), share)), op.Mul(kl, op.Mul(share, num(t.Temperature*t.Temperature))))
	for _, h := range t.Hints {
		loss = op.Add(loss, op.Mul(h.loss(g, seen, told), num(h.Weight)))
	}
	return loss
}

// learnFromSelf makes the model's teacher what the model is now, in the epoch of the given number, from 0, of so many.
func (m *Model) learnFromSelf(epoch, epochs int) error {
	if m.teacher == nil || !m.teacher.Self {
		return nil
	}
	if err := copyParams(m.state, m.state, m.params, teacherPrefix); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	share := 0.0
	if epochs > 1 {
		share = m.teacher.Weight * float64(epoch) / float64(epochs-1)
	}
	t := tensor.New(dtype.F32)
	t.Set(0, share)
	return m.state.Set(shareVar, t)
}
