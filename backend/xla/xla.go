// Package xla runs graphs on what XLA compiles for: graphics processors, TPUs and, to test it, the CPU, through a plugin that offers the PJRT C API (internal/pjrt).
//
// A graph, after the passes that serve every backend, becomes one StableHLO program: ops of the table say what they are there (Op.Lower) or follow from their compositions. Variables are buffers on the device;
// a run donates those that it updates, so that a train step changes weights in place and only the batch and the loss cross to the device and back. XLA fuses and plans by itself.
//
// Times of whole programs are measured; how they are shared out to nodes is predicted by the cost model, and said to be so (NodeTime.Predicted).
package xla

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/cost"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/internal/pjrt"
	"github.com/jouleml/joule/pass"
	"github.com/jouleml/joule/tensor"
)

// Options choose plugin and devices.
type Options struct {
	Plugin  string // path of the plugin; "": see Find
	Devices int    // how many devices share a batch; 0 is 1. The CPU has as many as are asked for.
	Cache   string // folder of compiled programs; "": see CacheDir; "off": none
}

// Backend implements backend.Backend on the devices of one plugin.
type Backend struct {
	client  *pjrt.Client
	devices int
	cache   cache
}

// Open connects to a plugin. Its errors say what to do: no plugin, no device, an API too old, fewer devices than asked for.
func Open(o Options) (*Backend, error) {
	n := max(1, o.Devices)
	c, err := connect(o.Plugin, n)
	if err != nil {
		return nil, err
	}
	if len(c.Devices) < n {
		return nil, fmt.Errorf("xla: %d devices are asked for, and %s has %d", n, c.Platform, len(c.Devices))
	}
	b := &Backend{client: c, devices: n}
	b.cache = newCache(o.Cache, c, n)
	return b, nil
}

// Name is "xla".
func (b *Backend) Name() string { return "xla" }

// Platform is the kind of machine: "cpu", "cuda", "tpu", …
func (b *Backend) Platform() string { return b.client.Platform }

// Devices is the number of devices that share a batch.
func (b *Backend) Devices() int { return b.devices }

// Kind is what the plugin calls a device: "cpu", "NVIDIA H100 80GB HBM3", …
func (b *Backend) Kind() string { return b.client.Devices[0].Kind }

// String describes plugin and devices in a line.
func (b *Backend) String() string {
	p := b.client.Plugin()
	return fmt.Sprintf("xla on %d × %s (%s), PJRT API %d.%d, %s", b.devices, b.Kind(), b.client.Platform, p.Major, p.Minor, p.Path)
}

// state holds variables on the devices, the same on each.
type state struct {
	b    *Backend
	vars []backend.Var
	at   map[string][]pjrt.Buffer
}

// NewState implements backend.Backend.
func (b *Backend) NewState(vars []backend.Var) (backend.State, error) {
	s := &state{b: b, at: map[string][]pjrt.Buffer{}}
	runtime.SetFinalizer(s, (*state).free)
	return s, s.Add(vars...)
}

func (s *state) free() {
	for _, bufs := range s.at {
		for _, x := range bufs {
			_ = s.b.client.Free(x) // memory of a state that nobody has any more: there is none to tell
		}
	}
}

// Vars implements backend.State.
func (s *state) Vars() []backend.Var { return s.vars }

// Add implements backend.State.
func (s *state) Add(vars ...backend.Var) error {
	for _, v := range vars {
		if i := slices.IndexFunc(s.vars, func(w backend.Var) bool { return w.Name == v.Name }); i >= 0 {
			if !s.vars[i].Type.Equal(v.Type) {
				return fmt.Errorf("state: variable %q is %v and cannot become %v", v.Name, s.vars[i].Type, v.Type)
			}
			continue
		}
		if err := s.place(v, tensor.New(v.Type.DType, v.Type.Shape...)); err != nil {
			return err
		}
		s.vars = append(s.vars, v)
	}
	return nil
}

// place puts t on every device as the value of v.
func (s *state) place(v backend.Var, t *tensor.Tensor) error {
	bufs := make([]pjrt.Buffer, s.b.devices)
	var err error
	for d := range bufs {
		if bufs[d], err = s.b.client.ToDevice(d, t.DType(), t.Shape(), t.Bytes()); err != nil {
			return fmt.Errorf("state: variable %q (%v) cannot be put on device %d: %w", v.Name, v.Type, d, explain(err))
		}
	}
	for _, old := range s.at[v.Name] {
		err = errors.Join(err, s.b.client.Free(old))
	}
	s.at[v.Name] = bufs
	return err
}

func (s *state) find(name string) (backend.Var, error) {
	for _, v := range s.vars {
		if v.Name == name {
			return v, nil
		}
	}
	return backend.Var{}, fmt.Errorf("state: there is no variable %q", name)
}

// Get implements backend.State.
func (s *state) Get(name string) (*tensor.Tensor, error) {
	v, err := s.find(name)
	if err != nil {
		return nil, err
	}
	defer runtime.KeepAlive(s) // its finalizer frees the buffer
	t := tensor.New(v.Type.DType, v.Type.Shape...)
	if err := s.b.client.ToHost(s.at[name][0], t.Bytes()); err != nil {
		return nil, fmt.Errorf("state: variable %q: %w", name, err)
	}
	return t, nil
}

// Set implements backend.State.
func (s *state) Set(name string, t *tensor.Tensor) error {
	v, err := s.find(name)
	if err != nil {
		return err
	}
	if !v.Type.Equal(graph.TypeOf(t)) {
		return fmt.Errorf("state: variable %q is %v and cannot take %v", name, v.Type, graph.TypeOf(t))
	}
	return s.place(v, t)
}

// explain adds a remedy where there is one.
func explain(err error) error {
	if errors.Is(err, pjrt.ErrOutOfMemory) {
		return fmt.Errorf("%w: a smaller batch or model needs less (%w)", pjrt.ErrOutOfMemory, err)
	}
	return err
}

// Compile implements backend.Backend. Options.Threads has no effect: XLA has its own.
func (b *Backend) Compile(g *graph.Graph, s backend.State, o backend.Options) (backend.Executable, error) {
	st, ok := s.(*state)
	if !ok || st.b != b {
		return nil, fmt.Errorf("compile: the state (%T) belongs to another backend", s)
	}
	for _, v := range g.Variables() {
		if w, err := st.find(graph.NameOf(v)); err != nil || !w.Type.Equal(v.Type()) {
			return nil, fmt.Errorf("compile: the state has no variable %q of type %v", graph.NameOf(v), v.Type())
		}
	}
	if o.Take != nil {
		return nil, errors.New("xla: outputs cannot be taken early")
	}
	opt, err := pass.Apply(g, pass.Standard...)
	if err != nil {
		return nil, fmt.Errorf("xla: %w", err)
	}
	e := &exec{b: b, g: opt, sig: g, state: st, ready: o.Ready}
	if e.prog, err = lower(opt, b.devices, o.StopAtNaN || debug.On("nan")); err != nil {
		return nil, fmt.Errorf("xla: %w", err)
	}
	if e.loaded, err = b.cache.compile(b.client, e.prog.text); err != nil {
		return nil, fmt.Errorf("xla: %w", explain(err))
	}
	runtime.SetFinalizer(e, func(e *exec) { _ = e.loaded.Close() })
	return e, e.prepare()
}

// exec is a compiled program bound to a state.
type exec struct {
	b      *Backend
	g      *graph.Graph // as it was lowered
	sig    *graph.Graph // as it was given
	state  *state
	prog   *program
	loaded *pjrt.Executable
	args   [][]pjrt.Buffer // by device: inputs, then variables
	inDims [][]int         // by input: shape of a device's part
	vars   []string
	news   []int // by update: the variable's place in vars
	flags  []byte
	ready  func(i int)

	nodes  []*graph.Node // executed, inputs apart
	shares []float64     // of a run's time, by node
	calls  int64
	copied time.Duration // of inputs to the devices
	ran    time.Duration
}

func (e *exec) prepare() error {
	want := len(e.g.Updates()) + len(e.g.Outputs())
	if e.prog.checked != nil {
		want++
		e.flags = make([]byte, len(e.prog.checked))
	}
	if got := e.loaded.Outputs(); got != want {
		return fmt.Errorf("xla: the compiled program has %d results where %d are needed", got, want)
	}
	for i, n := range e.g.Inputs() {
		dims := slices.Clone([]int(n.Shape()))
		if e.prog.sharded[i] {
			dims[0] /= e.b.devices
		}
		e.inDims = append(e.inDims, dims)
	}
	at := map[string]int{}
	for _, v := range e.g.Variables() {
		at[graph.NameOf(v)] = len(e.vars)
		e.vars = append(e.vars, graph.NameOf(v))
	}
	for _, u := range e.g.Updates() {
		e.news = append(e.news, at[graph.NameOf(u.Var)])
	}
	e.args = make([][]pjrt.Buffer, e.b.devices)
	for d := range e.args {
		e.args[d] = make([]pjrt.Buffer, len(e.g.Inputs())+len(e.vars))
	}
	live, sum := e.g.Live(), 0.0
	for _, n := range e.g.Nodes() {
		if n.Op().Kind == graph.Leaf || !live[n.ID()] {
			continue
		}
		w := weight(n)
		e.nodes, e.shares = append(e.nodes, n), append(e.shares, w)
		sum += w
	}
	for i := range e.shares {
		e.shares[i] /= max(sum, 1e-300)
	}
	return nil
}

// balance is how many operations a machine does while it moves a byte: about that of processors and accelerators of the 2020s in single precision. It only decides how the measured time of a program
// is shared out to its nodes.
const balance = 10

// weight is proportional to the time that the cost model predicts for a node: that of arithmetic or that of memory, whichever is longer.
func weight(n *graph.Node) float64 {
	c := cost.Node(n)
	return max(float64(c.FLOPs)/balance, float64(c.Bytes()), 1)
}

// Run implements backend.Executable.
func (e *exec) Run(in, out []*tensor.Tensor) error {
	if err := backend.CheckArgs(e.sig, in, out); err != nil {
		return err
	}
	start := time.Now()
	c := e.b.client
	for d, args := range e.args {
		for i, x := range in {
			raw := x.Bytes()
			if e.prog.sharded[i] {
				part := len(raw) / e.b.devices
				raw = raw[d*part : (d+1)*part]
			}
			var err error
			if args[i], err = c.ToDevice(d, x.DType(), e.inDims[i], raw); err != nil {
				return errors.Join(fmt.Errorf("run: input %q cannot be put on device %d: %w", graph.NameOf(e.g.Inputs()[i]), d, explain(err)), e.freeInputs())
			}
		}
		for i, name := range e.vars {
			args[len(in)+i] = e.state.at[name][d]
		}
	}
	there := time.Now()
	results, err := e.loaded.Run(e.args)
	if err != nil {
		return errors.Join(fmt.Errorf("run: %w", explain(err)), e.freeInputs())
	}
	if err := e.freeInputs(); err != nil {
		return err
	}
	for d := range e.args {
		for i, k := range e.news { // the old value was donated: only its name is left
			bufs := e.state.at[e.vars[k]]
			old := bufs[d]
			bufs[d] = results[d][i]
			if err := c.Free(old); err != nil {
				return err
			}
		}
	}
	for i, t := range out {
		if err := c.ToHost(results[0][len(e.news)+i], t.Bytes()); err != nil {
			return fmt.Errorf("run: output %q: %w", e.g.Outputs()[i].Name, err)
		}
		if e.ready != nil {
			e.ready(i)
		}
	}
	if e.flags != nil {
		if err := c.ToHost(results[0][len(e.news)+len(out)], e.flags); err != nil {
			return err
		}
	}
	for d := range results {
		for _, x := range results[d][len(e.news):e.loaded.Outputs()] {
			if err := c.Free(x); err != nil {
				return err
			}
		}
	}
	e.calls++
	e.copied += there.Sub(start)
	e.ran += time.Since(there)
	return e.finite()
}

// freeInputs frees the batch on the devices.
func (e *exec) freeInputs() error {
	var err error
	for _, args := range e.args {
		for i := range e.g.Inputs() {
			if e := e.b.client.Free(args[i]); e != nil && err == nil {
				err = e
			}
			args[i] = pjrt.Buffer{}
		}
	}
	return err
}

// finite names the first node with a result that is not finite, of a program that looks for them.
func (e *exec) finite() error {
	for i, ok := range e.flags {
		if ok == 0 {
			n := e.prog.checked[i]
			return fmt.Errorf("%s: %s of %s pass, node %v: an element of its result is not finite", n.Place(), n.Op().Name, n.Phase(), n)
		}
	}
	return nil
}

// Profile implements backend.Executable: the copy of inputs is measured, and the run of the program as a whole; a node's part of that is predicted.
func (e *exec) Profile() []backend.NodeTime {
	var out []backend.NodeTime
	if len(e.g.Inputs()) > 0 {
		out = append(out, backend.NodeTime{Node: e.g.Inputs()[0], Calls: e.calls, Time: e.copied, Kernel: "copy to the device"})
	}
	for i, n := range e.nodes {
		out = append(out, backend.NodeTime{Node: n, Calls: e.calls, Time: time.Duration(float64(e.ran) * e.shares[i]), Kernel: "xla", Predicted: true})
	}
	return out
}

// Reset implements backend.Executable.
func (e *exec) Reset() { e.calls, e.copied, e.ran = 0, 0, 0 }

// Memory implements backend.Executable.
func (e *exec) Memory() int64 { return e.loaded.Memory() }
