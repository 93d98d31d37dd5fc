package backend

import "github.com/jouleml/joule/tensor"

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
		h.derived[k] = &Derived{make([]float32, n), Seen{version: h.Version(v.Name)}}
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
	Raw  []byte
	made uint64 // 0: not yet
	of   []*uint64
}

// Keep declares memory of n bytes for a value that follows from the named variables, and says whether it is the first to ask. Equal keys must mean equal values.
func (h *Host) Keep(key string, n int, variables []string) (k *Kept, first bool) {
	if h.kept == nil {
		h.kept = map[string]*Kept{}
	}
	if k := h.kept[key]; k != nil {
		return k, false
	}
	k = &Kept{Raw: tensor.AlignedBytes(n)}
	for _, v := range variables {
		k.of = append(k.of, h.Version(v))
	}
	h.kept[key] = k
	return k, true
}

// now is a number that grows with every change of a variable, from 1.
func (k *Kept) now() uint64 {
	n := uint64(1)
	for _, v := range k.of {
		n += *v
	}
	return n
}

// Stale reports whether the value must be computed before it is read.
func (k *Kept) Stale() bool { return k.made != k.now() }

// Computed says that Raw holds the value of the variables as they are.
func (k *Kept) Computed() { k.made = k.now() }

// Watch remembers which state of several variables something was made from.
type Watch struct{ k Kept }

// Watch is for what an executable makes from variables and keeps to itself.
func (h *Host) Watch(variables ...string) *Watch {
	w := &Watch{}
	for _, v := range variables {
		w.k.of = append(w.k.of, h.Version(v))
	}
	return w
}

// Changed reports whether one of the variables has changed since Changed was last called.
func (w *Watch) Changed() bool {
	stale := w.k.Stale()
	w.k.Computed()
	return stale
}
