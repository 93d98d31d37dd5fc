// Package nvml reads the energy counters of NVIDIA GPUs through the driver's library, NVML, which it opens at run time (docs/decisions/dlopen.md).
//
// It has been tested over a library that imitates NVML, and has not yet run on a GPU.
package nvml

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/dl"
)

// Libraries are the names under which the driver installs NVML.
var Libraries = []string{"libnvidia-ml.so.1", "libnvidia-ml.so"}

// Return codes of NVML (nvmlReturn_t in nvml.h).
const (
	success         = 0
	notSupported    = 3
	noPermission    = 4
	driverNotLoaded = 9
	gpuIsLost       = 15
)

// maxDevices is more GPUs than a machine has; a count beyond it is no count.
const maxDevices = 1024

// calls are the functions of nvml.h that are needed, with its names and types: unsigned int is uint32, unsigned long long uint64, a handle a pointer.
type calls struct {
	init        func() int32                                  // nvmlInit_v2
	count       func(n *uint32) int32                         // nvmlDeviceGetCount_v2
	handle      func(index uint32, device *uintptr) int32     // nvmlDeviceGetHandleByIndex_v2
	name        func(device uintptr, s *byte, n uint32) int32 // nvmlDeviceGetName
	energy      func(device uintptr, mJ *uint64) int32        // nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded; Volta and later
	errorString func(code int32) string                       // nvmlErrorString
}

// meter adds up the counters of all GPUs that have one.
type meter struct {
	calls   calls
	devices []*device
	label   string
}

type device struct {
	index  int
	name   string
	handle uintptr
	last   uint64 // millijoules
	used   uint64
}

// Open opens the energy counters of all GPUs, with NVML from the first of the paths that can be opened (without any, where the driver installs it). The error says what is missing:
// the library, the driver, a GPU, or a GPU that counts (those before Volta do not).
func Open(paths ...string) (energy.Meter, error) {
	if len(paths) == 0 {
		paths = Libraries
	}
	lib, err := dl.Open(paths...)
	if errors.Is(err, dl.ErrUnavailable) {
		return nil, fmt.Errorf("energy: NVML: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("energy: NVML: there is no driver of NVIDIA on this machine: %w", err)
	}
	m := &meter{}
	for name, fn := range map[string]any{
		"nvmlInit_v2": &m.calls.init, "nvmlDeviceGetCount_v2": &m.calls.count, "nvmlDeviceGetHandleByIndex_v2": &m.calls.handle, "nvmlDeviceGetName": &m.calls.name,
		"nvmlDeviceGetTotalEnergyConsumption": &m.calls.energy, "nvmlErrorString": &m.calls.errorString,
	} {
		if err := lib.Func(fn, name); err != nil {
			return nil, fmt.Errorf("energy: NVML: %w", err)
		}
	}
	if err := m.find(); err != nil {
		return nil, err
	}
	return m, nil
}

// find lists the GPUs that count and reads each once.
func (m *meter) find() error {
	if err := m.check("nvmlInit", m.calls.init()); err != nil {
		return err
	}
	var n uint32
	if err := m.check("counting GPUs", m.calls.count(&n)); err != nil {
		return err
	}
	if n == 0 {
		return errors.New("energy: NVML: the driver is there, but no GPU is visible")
	}
	if n > maxDevices {
		return fmt.Errorf("energy: NVML: the library counts %d GPUs, which cannot be", n)
	}
	var mute []string
	for i := range int(n) {
		d := &device{index: i, name: "?"}
		if err := m.check(fmt.Sprintf("GPU %d", i), m.calls.handle(uint32(i), &d.handle)); err != nil {
			return err
		}
		text := make([]byte, 96) // NVML_DEVICE_NAME_V2_BUFFER_SIZE
		if m.calls.name(d.handle, &text[0], uint32(len(text))) == success {
			s, _, _ := bytes.Cut(text, []byte{0})
			d.name = string(s)
		}
		code := m.calls.energy(d.handle, &d.last)
		if code == notSupported {
			mute = append(mute, d.String())
			continue
		}
		if err := m.check(d.String(), code); err != nil {
			return err
		}
		m.devices = append(m.devices, d)
	}
	switch {
	case len(m.devices) == 0:
		return fmt.Errorf("energy: NVML: %s: no counter of energy (GPUs before Volta have none)", strings.Join(mute, ", "))
	case len(mute) > 0:
		m.label = fmt.Sprintf("NVML, %d of %d GPUs", len(m.devices), n)
	case n == 1:
		m.label = "NVML, " + m.devices[0].name
	default:
		m.label = fmt.Sprintf("NVML, %d GPUs", n)
	}
	return nil
}

func (d *device) String() string { return fmt.Sprintf("GPU %d (%s)", d.index, d.name) }

// check makes an error of a return code, with what can be done about it.
func (m *meter) check(what string, code int32) error {
	if code == success {
		return nil
	}
	hint := ""
	switch code {
	case driverNotLoaded:
		hint = ": load the driver (nvidia-smi does), and in a container pass the GPU through (--gpus all)"
	case noPermission:
		hint = ": the user may not read it"
	case gpuIsLost:
		hint = ": it has fallen off the bus; a restart brings it back"
	}
	return fmt.Errorf("energy: NVML: %s: %s (code %d)%s", what, m.calls.errorString(code), code, hint)
}

// Source implements energy.Meter.
func (m *meter) Source() energy.Source { return energy.Source{Measured: true, Name: m.label} }

// Joules implements energy.Meter. A counter that went back (the driver was loaded anew) is an error: what was used meanwhile is unknown.
func (m *meter) Joules() (float64, error) {
	total := 0.0
	for _, d := range m.devices {
		var now uint64
		if err := m.check(d.String(), m.calls.energy(d.handle, &now)); err != nil {
			return 0, err
		}
		if now < d.last {
			return 0, fmt.Errorf("energy: NVML: the counter of %v went from %d back to %d mJ: the driver was loaded anew while it was read", d, d.last, now)
		}
		d.used += now - d.last
		d.last = now
		total += float64(d.used) * 1e-3
	}
	return total, nil
}
