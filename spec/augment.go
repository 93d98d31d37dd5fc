package spec

import (
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/augment"
)

// change is one line of fit: augment.
type change struct {
	node *yaml.Node
	name string
	t    data.Transform // nil of normalise and mixup
}

// changeKind is a change that the list may name.
type changeKind struct {
	name, key string  // key is the setting that a number alone means
	value     float64 // of the setting, where it is not given
	make      func(v float64) data.Transform
}

// changes are the names that fit: augment knows, with what each takes.
//
//	augment: [flip, crop: 4, rotate: 10, mixup: 0.2, normalise]
var changes = []changeKind{
	{"flip", "probability", 0.5, augment.FlipHorizontal},
	{"crop", "pad", 4, func(v float64) data.Transform { return augment.RandomCrop(int(v)) }},
	{"rotate", "degrees", 10, augment.Rotate},
	{wordMixup, "alpha", 0.2, nil},
}

const (
	wordNormalise = "normalise"
	wordMixup     = "mixup"
)

func changeNames() []string {
	out := []string{wordNormalise}
	for _, c := range changes {
		out = append(out, c.name)
	}
	return out
}

// augment reads the list of random changes.
func (s *Spec) augment(n *yaml.Node) error {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return at(s.file, n, "fit: augment must be a list of changes, such as [flip, crop: 4]%s", known("", changeNames()))
	}
	for _, e := range n.Content {
		c := change{node: e, name: e.Value}
		var set *yaml.Node
		switch {
		case e.Kind == yaml.ScalarNode:
		case e.Kind == yaml.MappingNode && len(e.Content) == 2:
			c.name, set = e.Content[0].Value, e.Content[1]
			if set.Tag == "!!null" {
				set = nil
			}
		default:
			return at(s.file, e, "augment: a change is a name, or one name with its setting: \"- crop: 4\"")
		}
		if len(s.changes) > 0 && s.changes[len(s.changes)-1].name == wordNormalise {
			return at(s.file, e, "augment: %s comes after normalise, which must be last: what a picture is filled up with is black before it and some other colour after", c.name)
		}
		if c.name == wordNormalise || c.name == "normalize" {
			c.name = wordNormalise
			if err := s.normalise(set); err != nil {
				return err
			}
			s.changes = append(s.changes, c)
			continue
		}
		i := slices.IndexFunc(changes, func(k changeKind) bool { return k.name == c.name })
		if i < 0 {
			return at(s.file, e, "augment: unknown change %q%s", c.name, known(c.name, changeNames()))
		}
		k := changes[i]
		v := k.value
		if set != nil && set.Kind == yaml.MappingNode {
			r, err := mapping(s.file, "augment: "+k.name, set)
			if err != nil {
				return err
			}
			if err := r.into(k.key, &v); err != nil {
				return err
			}
			if err := r.done(); err != nil {
				return err
			}
		} else if set != nil {
			if err := set.Decode(&v); err != nil {
				return at(s.file, set, "augment: %s: %s must be a number like %g, not %q", k.name, k.key, k.value, set.Value)
			}
		}
		if k.name == "crop" && v != float64(int(v)) {
			return at(s.file, e, "augment: crop: pad is a whole number of pixels, not %g", v)
		}
		switch {
		case s.Fit.Mixup != 0:
			return at(s.file, e, "augment: %s comes after mixup, which mixes examples that have been changed: put it before", c.name)
		case k.make == nil:
			if !(v > 0 && v <= 1e6) {
				return at(s.file, e, "augment: mixup: alpha must be above 0 and at most 1e6, not %g (0.2 mixes little, 1 evenly)", v)
			}
			s.Fit.Mixup = v
		default:
			c.t = k.make(v)
			s.Fit.Augment = append(s.Fit.Augment, c.t)
		}
		s.changes = append(s.changes, c)
	}
	return nil
}

// changing reports whether training examples are changed at random.
func (f *Fit) changing() bool { return len(f.Augment) > 0 || f.Mixup != 0 }

// normalise reads {mean: [0.5], std: [0.25]}; nil: both are measured on the training part.
func (s *Spec) normalise(n *yaml.Node) error {
	s.norm = &data.Norm{}
	if n == nil {
		return nil
	}
	r, err := mapping(s.file, "augment: normalise", n)
	if err != nil {
		return err
	}
	for key, to := range map[string]*[]float32{"mean": &s.norm.Mean, "std": &s.norm.Std} {
		v := r.take(key)
		if v == nil {
			continue
		}
		if v.Kind == yaml.ScalarNode {
			*to = make([]float32, 1)
			err = v.Decode(&(*to)[0])
		} else {
			err = v.Decode(to)
		}
		if err != nil {
			return at(s.file, v, "augment: normalise: %s is a list of numbers, one for each channel or column, like [0.49, 0.48, 0.45]", key)
		}
	}
	if err := r.done(); err != nil {
		return err
	}
	if len(s.norm.Mean) == 0 || len(s.norm.Mean) != len(s.norm.Std) {
		return at(s.file, n, "augment: normalise takes as many values of std as of mean (%d and %d are given); without either both are measured on the training data", len(s.norm.Std), len(s.norm.Mean))
	}
	for _, v := range s.norm.Std {
		if !(v > 0) {
			return at(s.file, n, "augment: normalise: std %g is not positive", v)
		}
	}
	return nil
}

// some is n examples of ds, all of them for n = 0.
func (s Split) some(ds data.Dataset, n int) data.Dataset {
	switch {
	case n == 0:
		return ds
	case s.Shuffle != nil:
		return data.Sample(ds, n, *s.Shuffle)
	case n >= ds.Len():
		return ds
	}
	return data.Take(ds, n)
}

// Apply is the data set with these examples alone.
func (s Split) Apply(set *data.Set) *data.Set {
	out := *set
	out.Train, out.Test = s.some(set.Train, s.Take), s.some(set.Test, s.Test)
	return &out
}

// Ready gives the data set as the specification wants it: of each part some examples only (data: take, test), and both parts normalised (fit: augment). It checks that
// every change fits the data. Where training examples are changed before they are normalised, that happens as they are loaded: the training part is then as it was, and Fit.Augment
// ends with the normalisation; what Test says of its examples holds for both.
func (s *Spec) Ready(set *data.Set) (*data.Set, error) {
	out := *s.Split.Apply(set)
	d := out.Train.Spec()
	random := 0 // changes of one example at a time
	for _, c := range s.changes {
		var err error
		switch {
		case c.name == wordMixup:
			_, err = d.Mixed()
		case c.t != nil:
			random++
			_, err = c.t(d)
		}
		if err != nil {
			return nil, at(s.file, c.node, "%w", err)
		}
	}
	if s.norm == nil {
		return &out, nil
	}
	norm, last := *s.norm, s.changes[len(s.changes)-1]
	var err error
	if norm.Mean == nil {
		norm, err = data.FitNorm(out.Train)
	} else {
		err = norm.Fits(d)
	}
	if err == nil {
		out.Test, err = norm.Apply(out.Test)
	}
	if err == nil && len(s.changes) == 1 {
		out.Train, err = norm.Apply(out.Train)
	}
	if err != nil {
		return nil, at(s.file, last.node, "augment: normalise: %w", err)
	}
	s.late = nil
	if len(s.changes) > 1 {
		s.late = &norm
		s.Fit.Augment = append(s.Fit.Augment[:random:random], augment.Normalize(norm))
	}
	return &out, nil
}

// Changes names the changes, for people: "crop, flip, normalise".
func (s *Spec) Changes() string {
	var out string
	for i, c := range s.changes {
		if i > 0 {
			out += ", "
		}
		out += c.name
		if c.node.Kind == yaml.MappingNode && c.node.Content[1].Kind == yaml.ScalarNode {
			out += " " + c.node.Content[1].Value
		}
	}
	return out
}
