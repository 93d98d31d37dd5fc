package backend

// Derived is memory that an executable makes from a variable, such as weights in the order in which a kernel reads them. It is shared by all executables that ask
// for the same, and made again when the variable has changed.
type Derived struct {
	Data    []float32
	made    uint64 // the variable's version that Data is from; 0: none
	version *uint64
}

// derivedKey says what a Derived is: a variable, and how it is made.
type derivedKey struct{ variable, how string }

// Derive declares derived memory of n elements for a variable that h has. how names the way it is made: equal words must mean equal contents.
func (h *Host) Derive(v Var, how string, n int) *Derived {
	k := derivedKey{v.Name, how}
	if h.derived == nil {
		h.derived = map[derivedKey]*Derived{}
	}
	if h.derived[k] == nil {
		h.derived[k] = &Derived{Data: make([]float32, n), version: h.Version(v.Name)}
	}
	return h.derived[k]
}

// Fresh calls fill if the variable has changed since the last time.
func (d *Derived) Fresh(fill func(data []float32)) {
	if d.made != *d.version {
		fill(d.Data)
		d.made = *d.version
	}
}

// Version counts the changes of a variable, from 1. Set counts; an executable that writes a variable adds 1 after a run.
func (h *Host) Version(name string) *uint64 {
	if h.versions == nil {
		h.versions = map[string]*uint64{}
	}
	if h.versions[name] == nil {
		one := uint64(1)
		h.versions[name] = &one
	}
	return h.versions[name]
}
