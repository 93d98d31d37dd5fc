package energy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Meter reads a counter of joules. Counters are differenced: power is never sampled.
type Meter interface {
	// Source names the counter.
	Source() Source
	// Joules is the energy used since the meter was opened. It must be called more often than the counter wraps around (a minute is safe).
	Joules() (float64, error)
}

// Open gives the best meter of this machine, or nil and the reasons why there is none, each with its remedy.
func Open() (Meter, []error) {
	m, err := OpenRAPL(os.DirFS("/sys/class/powercap"))
	if err != nil {
		return nil, []error{err}
	}
	return m, nil
}

// rapl reads Linux's powercap tree: one counter of microjoules for each domain, which starts again at 0 after max_energy_range_uj.
type rapl struct {
	fsys    fs.FS
	domains []*domain
	name    string
}

type domain struct {
	dir        string // "intel-rapl:0"
	name       string // "package-0", "dram"
	span       uint64 // microjoules at which the counter starts again
	last, used uint64
}

// OpenRAPL opens the running-average-power-limit counters under fsys, the folder /sys/class/powercap. Of each socket it takes the package domain, and DRAM where that
// is a domain of its own. Core and uncore are parts of the package, and psys contains it: they are left out, so that nothing counts twice.
func OpenRAPL(fsys fs.FS) (Meter, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, errors.New("energy: RAPL: /sys/class/powercap is not there: this is not Linux on a processor with energy counters, or a virtual machine or container that hides them")
	}
	r := &rapl{fsys: fsys}
	// The same package counter may also show through memory-mapped registers (intel-rapl-mmio): those stand in only where the ordinary ones are not there.
	for _, control := range []string{"intel-rapl:", "intel-rapl-mmio:"} { // AMD's are called intel-rapl too
		if err := r.add(entries, control); err != nil {
			return nil, err
		}
		if r.has("package") {
			break
		}
	}
	if !r.has("package") {
		return nil, errors.New("energy: RAPL: /sys/class/powercap has no package counter: a virtual machine, or a kernel without CONFIG_INTEL_RAPL")
	}
	r.name = "RAPL package"
	if r.has("dram") {
		r.name += "+dram"
	}
	return r, nil
}

// has reports whether a counter's name begins so.
func (r *rapl) has(name string) bool {
	return slices.ContainsFunc(r.domains, func(d *domain) bool { return strings.HasPrefix(d.name, name) })
}

// add takes the packages and DRAM of one control type. Entries are symbolic links on a real machine, so whether one is a folder is not asked.
func (r *rapl) add(entries []fs.DirEntry, control string) error {
	for _, e := range entries {
		dir := e.Name()
		if !strings.HasPrefix(dir, control) {
			continue
		}
		name, err := r.text(dir, "name")
		if errors.Is(err, fs.ErrNotExist) {
			continue // what has no name cannot be told from a part of something counted already
		}
		if err != nil {
			return err
		}
		top := strings.Count(dir, ":") == 1
		if !(top && strings.HasPrefix(name, "package") || name == "dram") {
			continue
		}
		d := &domain{dir: dir, name: name}
		if d.span, err = r.number(dir, "max_energy_range_uj"); err != nil {
			return err
		}
		if d.last, err = r.number(dir, "energy_uj"); err != nil {
			return err
		}
		r.domains = append(r.domains, d)
	}
	return nil
}

func (r *rapl) text(dir, file string) (string, error) {
	p := path.Join(dir, file)
	b, err := fs.ReadFile(r.fsys, p)
	if errors.Is(err, fs.ErrPermission) {
		return "", fmt.Errorf("energy: RAPL: %s may be read by root only; allow it with: sudo chmod -R a+r /sys/class/powercap/intel-rapl (or a udev rule, docs/energy.md): %w", p, err)
	}
	if err != nil {
		return "", fmt.Errorf("energy: RAPL: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (r *rapl) number(dir, file string) (uint64, error) {
	s, err := r.text(dir, file)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("energy: RAPL: %s: %q is no number of microjoules", path.Join(dir, file), s)
	}
	return v, nil
}

// Source implements Meter.
func (r *rapl) Source() Source { return Source{true, r.name} }

// Joules implements Meter.
func (r *rapl) Joules() (float64, error) {
	total := 0.0
	for _, d := range r.domains {
		now, err := r.number(d.dir, "energy_uj")
		if err != nil {
			return 0, err
		}
		if now >= d.last {
			d.used += now - d.last
		} else { // the counter has started again
			if d.last > d.span {
				return 0, fmt.Errorf("energy: RAPL: %s went from %d back to %d, but its range ends at %d: the counter cannot be trusted", path.Join(d.dir, "energy_uj"), d.last, now, d.span)
			}
			d.used += d.span - d.last + now
		}
		d.last = now
		total += float64(d.used) * 1e-6
	}
	return total, nil
}
