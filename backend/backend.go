// Package backend is what a machine must offer to run graphs: state that lives on it, and programs compiled for it.
//
// Terminology: a State holds variables by name; an Executable is a graph compiled for one backend, its variables bound to one State.
// Several executables (a train step, the step of the last smaller batch, evaluation) share a State.
package backend

import (
	"cmp"
	"fmt"
	"time"

	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/tensor"
)

// Backend compiles graphs for one kind of machine.
type Backend interface {
	// Name is the word by which --backend selects it.
	Name() string
	// NewState makes zeroed variables.
	NewState(vars []Var) (State, error)
	// Compile makes g runnable. Each variable of g must be in s, with the same type. What g means never depends on options.
	Compile(g *graph.Graph, s State, o Options) (Executable, error)
}

// Var declares a variable.
type Var struct {
	Name string
	Type graph.Type
}

// State holds variables. It must not be used while an Executable that is bound to it runs.
type State interface {
	// Vars lists the variables in the order in which they were declared.
	Vars() []Var
	// Get copies a variable to the host.
	Get(name string) (*tensor.Tensor, error)
	// Set copies t into a variable of the same type.
	Set(name string, t *tensor.Tensor) error
	// Add declares more variables, zeroed. A name that exists must have the same type and keeps its value.
	Add(vars ...Var) error
}

// Options say how to compile.
type Options struct {
	Threads int // 0: as many as the backend's default
	// StopAtNaN makes a run fail at the first node whose result is not finite, with its layer and the line that made it. It is slow.
	StopAtNaN bool
	// Ready, if not nil, is called during a run, on the goroutine of Run, once for each output: when out[i] has been filled, which may be long before the run ends. It lets
	// gradients travel while the rest of the backward pass is computed.
	Ready func(i int)
	// Take, if not nil, is given the value of each output as soon as it is computed, before Ready; it must not keep p. Where it reports true the output has gone its way and nothing is
	// copied; such outputs may be nil in Run's out. Only the CPU backend has it: its memory of a result is then free for others.
	Take func(i int, p []byte) bool
}

// Executable is a compiled graph. One goroutine may use it at a time.
type Executable interface {
	// Run takes the graph's inputs and fills out, one tensor of the right type for each output. The host's tensors are not kept.
	Run(in, out []*tensor.Tensor) error
	// Profile is what each executed node has taken since the last Reset, in execution order.
	Profile() []NodeTime
	// Reset sets the profile to zero.
	Reset()
	// Memory is the number of bytes that the executable itself holds: arena, packed weights, scratch.
	Memory() int64
}

// Mover is an Executable that says how many bytes a run's transposes read and write: as the program asks, and as they are left by its compiler.
type Mover interface {
	Moved() (asked, left int64)
}

// NodeTime is what one executed node has taken. After fusion a node may stand for several of the graph that was compiled.
type NodeTime struct {
	Node   *graph.Node
	Calls  int64
	Time   time.Duration
	Kernel string // the name of the kernel that runs it
	// Executed is the arithmetic of a run as the kernel does it, such as Winograd's; 0: what the op counts.
	Executed int64
	// BF16 is the part of Executed that multiplies bf16 where the op's operands are not: a product of f32 in parts.
	BF16 int64
	// Predicted says that Time is a share of the measured time of more than this node, by the cost model.
	Predicted bool
}

// Cost is what one run of the node costs: as its op counts, but for the arithmetic, which is the kernel's.
func (t NodeTime) Cost() energy.Cost {
	c := cost.Node(t.Node)
	if t.Executed > 0 {
		c = c.Run(t.Executed)
		c.BF16 += t.BF16
	}
	return c
}

// CheckArgs verifies the tensors given to a run of g.
func CheckArgs(g *graph.Graph, in, out []*tensor.Tensor) error {
	return cmp.Or(checkInputs(g, in), checkRoom(g, out, false))
}

// CheckTaken is CheckArgs of a program whose outputs may be nil, because Options.Take takes them.
func CheckTaken(g *graph.Graph, in, out []*tensor.Tensor) error {
	return cmp.Or(checkInputs(g, in), checkRoom(g, out, true))
}

func checkInputs(g *graph.Graph, in []*tensor.Tensor) error {
	if len(in) != len(g.Inputs()) {
		return fmt.Errorf("run: the graph takes %d inputs, was given %d", len(g.Inputs()), len(in))
	}
	for i, n := range g.Inputs() {
		if !graph.TypeOf(in[i]).Equal(n.Type()) {
			return fmt.Errorf("run: input %q is %v, was given %v", graph.NameOf(n), n.Type(), graph.TypeOf(in[i]))
		}
	}
	return nil
}

func checkRoom(g *graph.Graph, out []*tensor.Tensor, taken bool) error {
	if len(out) != len(g.Outputs()) {
		return fmt.Errorf("run: the graph has %d outputs, was given room for %d", len(g.Outputs()), len(out))
	}
	for i, o := range g.Outputs() {
		if out[i] == nil && taken {
			continue
		}
		if !graph.TypeOf(out[i]).Equal(o.Node.Type()) {
			return fmt.Errorf("run: output %q is %v, was given room for %v", o.Name, o.Node.Type(), graph.TypeOf(out[i]))
		}
	}
	return nil
}

// NewOutputs makes tensors for the outputs of g.
func NewOutputs(g *graph.Graph) []*tensor.Tensor {
	out := make([]*tensor.Tensor, len(g.Outputs()))
	for i, o := range g.Outputs() {
		out[i] = tensor.New(o.Node.DType(), o.Node.Shape()...)
	}
	return out
}

// Host is a State in host memory, for backends that run there.
type Host struct {
	vars     []Var
	at       map[string]*tensor.Tensor
	versions map[string]*uint64
	derived  map[derivedKey]*Derived
	kept     map[string]*Kept
}

// NewHost makes zeroed variables in host memory.
func NewHost(vars []Var) (*Host, error) {
	h := &Host{at: map[string]*tensor.Tensor{}}
	return h, h.Add(vars...)
}

// Vars implements State.
func (h *Host) Vars() []Var { return h.vars }

// Add implements State.
func (h *Host) Add(vars ...Var) error {
	for _, v := range vars {
		if t := h.at[v.Name]; t != nil {
			if !graph.TypeOf(t).Equal(v.Type) {
				return fmt.Errorf("state: variable %q is %v and cannot become %v", v.Name, graph.TypeOf(t), v.Type)
			}
			continue
		}
		h.vars = append(h.vars, v)
		h.at[v.Name] = tensor.New(v.Type.DType, v.Type.Shape...)
	}
	return nil
}

// Get implements State.
func (h *Host) Get(name string) (*tensor.Tensor, error) {
	t := h.at[name]
	if t == nil {
		return nil, fmt.Errorf("state: there is no variable %q", name)
	}
	return t.Clone(), nil
}

// Set implements State.
func (h *Host) Set(name string, t *tensor.Tensor) error {
	own := h.at[name]
	if own == nil {
		return fmt.Errorf("state: there is no variable %q", name)
	}
	if !graph.TypeOf(own).Equal(graph.TypeOf(t)) {
		return fmt.Errorf("state: variable %q is %v and cannot take %v", name, graph.TypeOf(own), graph.TypeOf(t))
	}
	copy(own.Bytes(), t.Bytes())
	*h.Version(name)++
	return nil
}

// Edit lets f change a variable where it lies. f must not keep t.
func (h *Host) Edit(name string, f func(t *tensor.Tensor)) error {
	own := h.at[name]
	if own == nil {
		return fmt.Errorf("state: there is no variable %q", name)
	}
	f(own)
	*h.Version(name)++
	return nil
}

// Bytes is the size of a variable, 0 if there is none of that name.
func (h *Host) Bytes(name string) int {
	if t := h.at[name]; t != nil {
		return len(t.Bytes())
	}
	return 0
}

// Tensor is the variable's own memory, for executables bound to h, which count their writes with Version; nil if there is none of that name and type.
func (h *Host) Tensor(v Var) *tensor.Tensor {
	if t := h.at[v.Name]; t != nil && graph.TypeOf(t).Equal(v.Type) {
		return t
	}
	return nil
}

// Bind checks that s is a Host that has every variable of g.
func Bind(g *graph.Graph, s State) (*Host, error) {
	h, ok := s.(*Host)
	if !ok {
		return nil, fmt.Errorf("compile: the state (%T) belongs to another backend", s)
	}
	for _, v := range g.Variables() {
		if h.Tensor(Var{graph.NameOf(v), v.Type()}) == nil {
			return nil, fmt.Errorf("compile: the state has no variable %q of type %v", graph.NameOf(v), v.Type())
		}
	}
	return h, nil
}
