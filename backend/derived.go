package backend

import "github.com/jouleml/joule/tensor"

// Seen remembers which state of variables something was made from.
type Seen struct {
	made uint64 // 0: none
	of   []*uint64
}

// now is a number that grows with every change of a variable, from 1.
func (s *Seen) now() uint64 {
	n := uint64(1)
	for _, v := range s.of {
		n += *v
	}
	return n
}

// Stale reports whether a variable has changed since Made was last called, or whether it never was.
func (s *Seen) Stale() bool { return s.made != s.now() }

// Made says that what is made of the variables is made of them as they are.
func (s *Seen) Made() { s.made = s.now() }

// Changed reports whether a variable has changed since Changed was last called.
func (s *Seen) Changed() bool {
	stale := s.Stale()
	s.Made()
	return stale
}

// Watch is for what an executable makes from variables and keeps to itself.
func (h *Host) Watch(variables ...string) Seen {
	var s Seen
	for _, v := range variables {
		s.of = append(s.of, h.Version(v))
	}
	return s
}

// Derived is memory that an executable makes from a variable, such as weights in the order in which a kernel reads them. It is shared by all executables that ask
// for the same, and made again when the variable has changed.
type Derived struct {
	Data []float32
	Seen
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
		h.derived[k] = &Derived{make([]float32, n), h.Watch(v.Name)}
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

// Kept is memory of a value that follows from variables alone. It is shared by all executables that compute the same value, and computed again when one of the variables has changed.
type Kept struct {
	Raw []byte
	Seen
}

// Keep declares memory of n bytes for a value that follows from the named variables, and says whether it is the first to ask. Equal keys must mean equal values.
func (h *Host) Keep(key string, n int, variables []string) (k *Kept, first bool) {
	if h.kept == nil {
		h.kept = map[string]*Kept{}
	}
	if k := h.kept[key]; k != nil {
		return k, false
	}
	k = &Kept{tensor.AlignedBytes(n), h.Watch(variables...)}
	h.kept[key] = k
	return k, true
}
