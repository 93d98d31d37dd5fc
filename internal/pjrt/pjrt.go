// Package pjrt calls accelerator plugins that offer the PJRT C API (github.com/openxla/xla, xla/pjrt/c/pjrt_c_api.h), without cgo: the plugin is a shared library, opened at run time.
//
// # Terminology
//
// A Plugin is a library; a Client is its connection to the devices of one kind; a Buffer is memory on one device; an Executable is a compiled program, loaded on one or more
// devices. Every function of the API takes one struct, whose first word is its size, the second an extension (none), and gives an error or nil.
//
// # Memory
//
// Structs are blocks of words on the Go heap, larger than any of the API's and zero where nothing is said, which a plugin of a newer version accepts. The garbage collector does not move heap objects; what a call points to is
// kept alive until the call returns, and nothing that a plugin may still read or write after it has returned is ours: arrays given to a device are copied during the call, and arrays
// read from it are awaited.
package pjrt

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"unsafe"

	"github.com/jouleml/joule/internal/dl"
)

// Errors that callers tell apart, beside dl.ErrUnavailable.
var (
	ErrNoDevice    = errors.New("the plugin found no device")
	ErrTooOld      = errors.New("the plugin's PJRT API is too old")
	ErrOutOfMemory = errors.New("out of device memory")
)

// The versions of the API that are understood. Positions of functions and fields do not change within major version 0.
const (
	major    = 0
	minMinor = 81 // the oldest that was tried
)

// Indices of functions in PJRT_Api.
const (
	fnErrorDestroy       = 0
	fnErrorMessage       = 1
	fnErrorCode          = 2
	fnInitialize         = 3
	fnEventDestroy       = 5
	fnEventAwait         = 8
	fnClientCreate       = 10
	fnClientDestroy      = 11
	fnPlatformName       = 12
	fnPlatformVersion    = 14
	fnAddressableDevices = 16
	fnCompile            = 20
	fnBufferFromHost     = 22
	fnDescriptionID      = 23
	fnDescriptionKind    = 26
	fnDescription        = 29
	fnMemoryStats        = 34
	fnExecutableDestroy  = 40
	fnNumOutputs         = 44
	fnSerialize          = 49
	fnLoadedDestroy      = 50
	fnGetExecutable      = 51
	fnExecute            = 55
	fnDeserialize        = 56
	fnBufferDestroy      = 58
	fnToHost             = 70
	fnCompiledMemory     = 96
)

// words is the size of a block: more than any struct of the API has.
const words = 64

// block is a struct of the API, and behind it, where the plugin does not look, its own address: the list of arguments of a call, which so needs no memory of its own.
type block [words + 1]uintptr

var blocks = sync.Pool{New: func() any { return new(block) }}

func get() *block {
	b := blocks.Get().(*block)
	b.clear()
	return b
}

// clear makes it an empty struct again, with operands from word 2 on.
func (b *block) clear(operands ...uintptr) {
	*b = block{0: words * unsafe.Sizeof(uintptr(0)), words: dl.Pointer(b)}
	copy(b[2:], operands)
}

func (b *block) args() []uintptr { return b[words:] }

// call calls a C function of words. args must lie on the heap.
func call(fn uintptr, args []uintptr) uintptr { return dl.Call(fn, args...) }

func put(b *block) { blocks.Put(b) }

// pointer is word i as a pointer to memory of the plugin.
func (b *block) pointer(i int) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&b[i])) }

// bytes copies n bytes of the plugin's memory at p.
func bytesAt(p unsafe.Pointer, n uintptr) []byte {
	if p == nil || n == 0 {
		return nil
	}
	return append([]byte(nil), unsafe.Slice((*byte)(p), n)...)
}

func (b *block) text(i int) string { return string(bytesAt(b.pointer(i), b[i+1])) }

func address[T any](xs []T) uintptr { return dl.Pointer(unsafe.SliceData(xs)) }

// Plugin is an opened library.
type Plugin struct {
	Path         string
	Major, Minor int
	fns          []uintptr
}

var opened struct {
	sync.Mutex
	at map[string]*Plugin
}

// Open opens the plugin at a path, once for each path: plugins cannot be closed.
func Open(path string) (*Plugin, error) {
	opened.Lock()
	defer opened.Unlock()
	if p := opened.at[path]; p != nil {
		return p, nil
	}
	p, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("pjrt: %s: %w", path, err)
	}
	if opened.at == nil {
		opened.at = map[string]*Plugin{}
	}
	opened.at[path] = p
	return p, nil
}

func open(path string) (*Plugin, error) {
	// What XLA prints to stderr below the level of errors is for those who work on XLA.
	if _, set := os.LookupEnv("TF_CPP_MIN_LOG_LEVEL"); !set {
		if err := os.Setenv("TF_CPP_MIN_LOG_LEVEL", "2"); err != nil {
			return nil, err
		}
	}
	lib, err := dl.Open(path)
	if err != nil {
		return nil, fmt.Errorf("it cannot be opened: %w", err)
	}
	getAPI, err := lib.Sym("GetPjrtApi")
	if err != nil {
		return nil, fmt.Errorf("it is no PJRT plugin: %w", err)
	}
	ret := &block{call(getAPI, nil)}
	api := (*block)(ret.pointer(0))
	if api == nil {
		return nil, errors.New("GetPjrtApi gave nothing")
	}
	// size, extension, {size, extension, version}, functions…
	version := (*[2]int32)(unsafe.Pointer(&api[4]))
	p := &Plugin{Path: path, Major: int(version[0]), Minor: int(version[1])}
	if p.Major != major || p.Minor < minMinor {
		return nil, fmt.Errorf("%w: version %d.%d, and at least %d.%d is needed", ErrTooOld, p.Major, p.Minor, major, minMinor)
	}
	if n := int(api[0]/unsafe.Sizeof(uintptr(0))) - 5; n > 0 {
		p.fns = append(p.fns, unsafe.Slice(&api[5], n)...)
	}
	b := get()
	defer put(b)
	return p, p.call(fnInitialize, b)
}

// call calls a function that gives an error.
func (p *Plugin) call(fn int, b *block) error {
	if fn >= len(p.fns) || p.fns[fn] == 0 {
		return fmt.Errorf("%w: it lacks function %d", ErrTooOld, fn)
	}
	e := call(p.fns[fn], b.args())
	runtime.KeepAlive(b)
	if e == 0 {
		return nil
	}
	return p.failure(e)
}

// Error is what a plugin says went wrong.
type Error struct {
	Code    int // as absl::StatusCode
	Message string
}

func (e *Error) Error() string { return e.Message }

// Is says that an error of code RESOURCE_EXHAUSTED is ErrOutOfMemory, and one that says so in words: older plugins give it another code.
func (e *Error) Is(target error) bool {
	return target == ErrOutOfMemory && (e.Code == 8 || strings.Contains(strings.ToLower(e.Message), "out of memory"))
}

// failure turns the plugin's error into ours and frees it.
func (p *Plugin) failure(e uintptr) error {
	b := get()
	defer put(b)
	out := &Error{}
	b[2] = e
	call(p.fns[fnErrorMessage], b.args())
	out.Message = b.text(3)
	b.clear(e)
	if code := call(p.fns[fnErrorCode], b.args()); code == 0 {
		out.Code = int(int32(b[3]))
	}
	b.clear(e)
	call(p.fns[fnErrorDestroy], b.args())
	runtime.KeepAlive(b)
	return out
}

// Option is a setting of a client, such as cpu_device_count.
type Option struct {
	Name  string
	Value int64
}

// Device is one device of a client.
type Device struct {
	ID       int
	Kind     string
	InUse    int64 // bytes of memory; -1: not told
	Limit    int64
	describe uintptr
	handle   uintptr
}

// Client is a connection to devices.
type Client struct {
	p                 *Plugin
	handle            uintptr
	Platform, Version string
	Devices           []Device
}

// NewClient connects. It gives an error that is ErrNoDevice where there is no device.
func (p *Plugin) NewClient(opts ...Option) (*Client, error) {
	b := get()
	defer put(b)
	const size = 7 // words of PJRT_NamedValue
	named := make([]uintptr, size*len(opts)+1)
	names := make([][]byte, len(opts))
	for i, o := range opts {
		names[i] = append([]byte(o.Name), 0)
		copy(named[size*i:], []uintptr{size * unsafe.Sizeof(uintptr(0)), 0, address(names[i]), uintptr(len(o.Name)), 1, uintptr(o.Value), 1})
	}
	b[2], b[3] = address(named), uintptr(len(opts))
	err := p.call(fnClientCreate, b)
	runtime.KeepAlive(named)
	runtime.KeepAlive(names)
	if err != nil {
		return nil, fmt.Errorf("pjrt: %s: %w: %w", p.Path, ErrNoDevice, err)
	}
	c := &Client{p: p, handle: b[8]}
	if c.Platform, err = c.told(fnPlatformName); err != nil {
		return nil, err
	}
	if c.Version, err = c.told(fnPlatformVersion); err != nil {
		return nil, err
	}
	b.clear(c.handle)
	if err := p.call(fnAddressableDevices, b); err != nil {
		return nil, err
	}
	for _, h := range unsafe.Slice((*uintptr)(b.pointer(3)), int(b[4])) {
		d, err := c.device(h)
		if err != nil {
			return nil, err
		}
		c.Devices = append(c.Devices, d)
	}
	if len(c.Devices) == 0 {
		return nil, fmt.Errorf("pjrt: %s: %w", p.Path, ErrNoDevice)
	}
	return c, nil
}

// Plugin is the library that the client is of.
func (c *Client) Plugin() *Plugin { return c.p }

// Close ends the connection; nothing that came of it may be used any more.
func (c *Client) Close() error {
	b := get()
	defer put(b)
	b[2] = c.handle
	return c.p.call(fnClientDestroy, b)
}

func (c *Client) told(fn int) (string, error) {
	b := get()
	defer put(b)
	b[2] = c.handle
	err := c.p.call(fn, b)
	return b.text(3), err
}

func (c *Client) device(h uintptr) (Device, error) {
	b := get()
	defer put(b)
	b[2] = h
	if err := c.p.call(fnDescription, b); err != nil {
		return Device{}, err
	}
	d := Device{handle: h, describe: b[3]}
	b.clear(d.describe)
	if err := c.p.call(fnDescriptionKind, b); err != nil {
		return Device{}, err
	}
	d.Kind = b.text(3)
	b.clear(d.describe)
	if err := c.p.call(fnDescriptionID, b); err != nil {
		return Device{}, err
	}
	d.ID = int(int32(b[3]))
	d.InUse, d.Limit = c.memory(h)
	return d, nil
}

// memory is what a device tells of its memory: in use and limit, -1 where it does not.
func (c *Client) memory(h uintptr) (used, limit int64) {
	b := get()
	defer put(b)
	b[2] = h
	if c.p.call(fnMemoryStats, b) != nil {
		return -1, -1
	}
	used, limit = int64(b[3]), -1
	if b[11]&1 != 0 {
		limit = int64(b[10])
	}
	return used, limit
}

// Await waits for an event and frees it.
func (c *Client) await(event uintptr) error {
	if event == 0 {
		return nil
	}
	b := get()
	defer put(b)
	b[2] = event
	err := c.p.call(fnEventAwait, b)
	b.clear(event)
	return errors.Join(err, c.p.call(fnEventDestroy, b))
}
