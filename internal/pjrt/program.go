package pjrt

import (
	"errors"
	"runtime"
	"slices"
	"unsafe"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/dl"
)

// Buffer is memory on a device; the zero Buffer is none.
type Buffer struct{ handle uintptr }

// bufferTypes are PJRT's numbers of element types.
var bufferTypes = [...]uintptr{dtype.F32: 11, dtype.F64: 12, dtype.BF16: 13, dtype.I8: 2, dtype.U8: 6, dtype.I32: 4, dtype.I64: 5, dtype.Bool: 1}

// ToDevice copies an array in row-major order to a device. dims is read only during the call.
func (c *Client) ToDevice(device int, dt dtype.Type, dims []int, data []byte) (Buffer, error) {
	b := get()
	defer put(b)
	if len(data) == 0 {
		data = nothing[:]
	}
	b[2], b[3], b[4] = c.handle, address(data), bufferTypes[dt]
	b[5], b[6] = address(dims), uintptr(len(dims))
	b[10] = c.Devices[device].handle // b[9], when the host's array may change: 0, after the call
	err := c.p.call(fnBufferFromHost, b)
	runtime.KeepAlive(data)
	runtime.KeepAlive(dims)
	if err != nil {
		return Buffer{}, err
	}
	h, done := b[14], b[13]
	return Buffer{h}, c.await(done)
}

var nothing [64]byte

// Free gives the memory back, or what is left of a donated buffer.
func (c *Client) Free(x Buffer) error {
	if x.handle == 0 {
		return nil
	}
	b := get()
	defer put(b)
	b[2] = x.handle
	return c.p.call(fnBufferDestroy, b)
}

// ToHost copies a buffer into dst, which must have its size.
func (c *Client) ToHost(x Buffer, dst []byte) error {
	if len(dst) == 0 {
		return nil
	}
	b := get()
	defer put(b)
	b[2], b[4], b[5] = x.handle, address(dst), uintptr(len(dst))
	if err := c.p.call(fnToHost, b); err != nil {
		return err
	}
	err := c.await(b[6])
	runtime.KeepAlive(dst)
	return err
}

// Executable is a loaded program.
type Executable struct {
	c                *Client
	handle           uintptr // PJRT_LoadedExecutable
	program          uintptr // PJRT_Executable
	outputs, devices int
	options          *block
	args, outs       [][]Buffer // by device: the plugin reads and writes them during Run
	argLists, lists  []uintptr
	events           []uintptr
}

// Setting is a compiler setting by its name in XLA's DebugOptions.
type Setting struct {
	Name  string
	Value bool
}

// options is CompileOptionsProto for a program cut into as many partitions as there are devices.
func options(devices int, settings []Setting) []byte {
	var build []byte
	number := func(to []byte, field protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(to, field, protowire.VarintType), v)
	}
	message := func(to []byte, field protowire.Number, m []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(to, field, protowire.BytesType), m)
	}
	build = number(build, 1, ^uint64(0)) // device_ordinal -1: as the assignment says
	build = number(build, 4, 1)          // num_replicas
	build = number(build, 5, uint64(devices))
	if devices > 1 {
		build = number(build, 6, 1)  // use_spmd_partitioning
		build = number(build, 19, 1) // use_shardy_partitioner
	}
	out := message(nil, 3, build)
	for _, s := range settings {
		v := uint64(0)
		if s.Value {
			v = 1
		}
		entry := message(nil, 1, []byte(s.Name))
		out = message(out, 7, message(entry, 2, number(nil, 2, v))) // env_option_overrides
	}
	return out
}

// Compile compiles a program of format "mlir" for the first devices of the client.
func (c *Client) Compile(code string, devices int, settings ...Setting) (*Executable, error) {
	b, prog := get(), get()
	defer put(b)
	defer put(prog)
	text, format, opts := []byte(code), []byte("mlir"), options(devices, settings)
	prog[2], prog[3], prog[4], prog[5] = address(text), uintptr(len(text)), address(format), uintptr(len(format))
	b[2], b[3], b[4], b[5] = c.handle, dl.Pointer(prog), address(opts), uintptr(len(opts))
	err := c.p.call(fnCompile, b)
	runtime.KeepAlive(text)
	runtime.KeepAlive(format)
	runtime.KeepAlive(opts)
	runtime.KeepAlive(prog)
	if err != nil {
		return nil, err
	}
	return c.loaded(b[6], devices)
}

// Load makes a program runnable that Serialize has written, of the same plugin and for as many devices.
func (c *Client) Load(serialized []byte, devices int) (*Executable, error) {
	if len(serialized) == 0 {
		return nil, errors.New("pjrt: nothing to load")
	}
	b := get()
	defer put(b)
	b[2], b[3], b[4] = c.handle, address(serialized), uintptr(len(serialized))
	err := c.p.call(fnDeserialize, b)
	runtime.KeepAlive(serialized)
	if err != nil {
		return nil, err
	}
	return c.loaded(b[5], devices)
}

func (c *Client) loaded(handle uintptr, devices int) (*Executable, error) {
	e := &Executable{c: c, handle: handle, devices: devices, options: new(block)}
	e.options[0] = words * unsafe.Sizeof(uintptr(0))
	b := get()
	defer put(b)
	b[2] = handle
	if err := c.p.call(fnGetExecutable, b); err != nil {
		return nil, err
	}
	e.program = b[3]
	b.clear(e.program)
	if err := c.p.call(fnNumOutputs, b); err != nil {
		return nil, err
	}
	e.outputs = int(b[3])
	e.events, e.lists, e.argLists = make([]uintptr, devices), make([]uintptr, devices), make([]uintptr, devices)
	e.args, e.outs = make([][]Buffer, devices), make([][]Buffer, devices)
	for d := range devices {
		e.outs[d] = make([]Buffer, max(1, e.outputs))
		e.lists[d] = address(e.outs[d])
	}
	return e, nil
}

// Close frees the program.
func (e *Executable) Close() error {
	b := get()
	defer put(b)
	b[2] = e.program
	err := e.c.p.call(fnExecutableDestroy, b)
	b.clear(e.handle)
	return errors.Join(err, e.c.p.call(fnLoadedDestroy, b))
}

// Outputs is the number of results.
func (e *Executable) Outputs() int { return e.outputs }

// Serialize gives the compiled program as bytes, for Load.
func (e *Executable) Serialize() ([]byte, error) {
	b := get()
	defer put(b)
	b[2] = e.program
	if err := e.c.p.call(fnSerialize, b); err != nil {
		return nil, err
	}
	out := bytesAt(b.pointer(3), b[4])
	if b[6] != 0 {
		call(b[6], b[5:6])
	}
	return out, nil
}

// Memory is the number of bytes that a run needs beside arguments and results, and those of the code; 0 where the plugin does not tell.
func (e *Executable) Memory() int64 {
	b := get()
	defer put(b)
	b[2] = e.program
	if e.c.p.call(fnCompiledMemory, b) != nil {
		return 0
	}
	return int64(b[3]) + int64(b[7])
}

// Run runs the program on its devices and waits for its end. args are the arguments of each device; donated ones must be freed but not used again. The results, by device, belong to
// the caller; the slices are overwritten by the next run.
func (e *Executable) Run(args [][]Buffer) ([][]Buffer, error) {
	b := get()
	defer put(b)
	n := 0
	for d := range e.devices {
		n = len(args[d])
		e.args[d] = append(e.args[d][:0], args[d]...)
		e.argLists[d] = address(e.args[d])
	}
	b[2], b[3] = e.handle, dl.Pointer(e.options)
	b[4], b[5], b[6], b[7], b[8] = address(e.argLists), uintptr(e.devices), uintptr(n), address(e.lists), address(e.events)
	err := e.c.p.call(fnExecute, b)
	runtime.KeepAlive(e)
	if err != nil {
		return nil, err
	}
	for _, ev := range e.events {
		err = errors.Join(err, e.c.await(ev))
	}
	if err != nil {
		for d := range e.outs {
			for _, x := range slices.Clone(e.outs[d][:e.outputs]) {
				err = errors.Join(err, e.c.Free(x))
			}
		}
		return nil, err
	}
	return e.outs, nil
}
