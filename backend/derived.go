package backend

// Derived is memory that an executable makes from a variable, such as weights in the order in which a kernel reads them. It is shared by all executables that ask
// for the same, and made again when the variable has changed.
type Derived struct {
	Data []float32
	Seen
}

// Seen remembers which version of a variable something was made from.
type Seen struct {
	made    uint64 // 0: none
	version *uint64
}

// Seen is for what an executable makes from a variable and keeps to itself.
func (h *Host) Seen(variable string) Seen { return Seen{version: h.Version(variable)} }

// Changed reports whether the variable has changed since Changed was last called.
func (s *Seen) Changed() bool {
	if s.made == *s.version {
		return false
	}
	s.made = *s.version
	return true
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
		h.derived[k] = &Derived{make([]float32, n), h.Seen(v.Name)}
	}
	return h.derived[k]
}

// Fresh calls fill if the variable has changed since the last time.
func (d *Derived) Fresh(fill func(data []float32)) {
	if d.Changed() {
		fill(d.Data)
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
