package spec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

func (s *Spec) compile(r *reader) error {
	n := r.take("compile")
	if n == nil {
		return at(s.file, r.node, "compile is missing: optimizer, loss and metrics")
	}
	c, err := mapping(s.file, "compile", n)
	if err != nil {
		return err
	}
	if err := s.optim(c); err != nil {
		return err
	}
	if err := s.lossOf(c); err != nil {
		return err
	}
	if p := c.take("precision"); p != nil {
		s.precision = nn.Policy(p.Value)
		if err := s.precision.Check(); err != nil {
			return at(s.file, p, "compile: %w", err)
		}
	}
	if m := c.take("metrics"); m != nil {
		var names []string
		if err := m.Decode(&names); err != nil {
			return at(s.file, m, "compile: metrics must be a list of names")
		}
		for _, name := range names {
			k, ok := train.Metrics[name]
			if !ok {
				return at(s.file, m, "unknown metric %q%s", name, known(name, slices.Collect(maps.Keys(train.Metrics))))
			}
			s.metrics = append(s.metrics, k)
		}
	}
	return c.done()
}

func (s *Spec) lossOf(c *reader) error {
	n := c.take("loss")
	if n == nil {
		return at(s.file, c.node, "compile: loss is missing%s", known("", slices.Collect(maps.Keys(train.Losses))))
	}
	name, smoothing, ignore := n.Value, 0.0, int64(-1)
	hasIgnore := false
	if n.Kind == yaml.MappingNode {
		l, err := mapping(s.file, "loss", n)
		if err != nil {
			return err
		}
		hasIgnore = l.keys["ignore"] != nil
		if err := errors.Join(l.into("name", &name), l.into("label_smoothing", &smoothing), l.into("ignore", &ignore)); err != nil {
			return err
		}
		if err := l.done(); err != nil {
			return err
		}
	}
	loss, ok := train.Losses[name]
	if !ok {
		return at(s.file, n, "unknown loss %q%s", name, known(name, slices.Collect(maps.Keys(train.Losses))))
	}
	s.loss = loss
	if smoothing == 0 && !hasIgnore {
		return nil
	}
	switch {
	case smoothing < 0 || smoothing >= 1:
		return at(s.file, n, "loss: label_smoothing %g is not in [0, 1)", smoothing)
	case name == train.SparseCategoricalCrossentropy.Name:
		opts := []train.XentOption{train.Smooth(smoothing)}
		if hasIgnore {
			opts = append(opts, train.Ignore(int32(ignore)))
		}
		s.loss = train.SparseCategorical(opts...)
	case name == train.CategoricalCrossentropy.Name && !hasIgnore:
		s.loss = train.Categorical(smoothing)
	case name == train.BinaryCrossentropy.Name && !hasIgnore:
		s.loss = train.Binary(smoothing)
	default:
		return at(s.file, n, "loss %s takes no label_smoothing or ignore", name)
	}
	return nil
}

func (s *Spec) optim(c *reader) error {
	n := c.take("optimizer")
	if n == nil {
		return at(s.file, c.node, "compile: optimizer is missing%s", known("", optim.Names()))
	}
	name := n.Value
	var decay, clipValue, clipNorm, globalClip, momentum float64
	var nesterov, centered bool
	var schedule func(steps int64) (optim.Schedule, error)
	given := map[string]bool{}
	if n.Kind == yaml.MappingNode {
		o, err := mapping(s.file, "optimizer", n)
		if err != nil {
			return err
		}
		for k := range o.keys {
			given[k] = true
		}
		err = errors.Join(o.into("name", &name), o.into("weight_decay", &decay), o.into("clipvalue", &clipValue), o.into("clipnorm", &clipNorm),
			o.into("global_clipnorm", &globalClip), o.into("momentum", &momentum), o.into("nesterov", &nesterov), o.into("centered", &centered))
		if err != nil {
			return err
		}
		if rate := o.take("learning_rate"); rate != nil {
			if schedule, err = s.schedule(rate); err != nil {
				return err
			}
		}
		if err := o.done(); err != nil {
			return err
		}
	}
	if !slices.Contains(optim.Names(), name) {
		return at(s.file, n, "unknown optimizer %q%s", name, known(name, optim.Names()))
	}
	if given["momentum"] && name != "sgd" && name != "rmsprop" || given["nesterov"] && name != "sgd" || given["centered"] && name != "rmsprop" {
		return at(s.file, n, "optimizer %s takes no momentum, nesterov or centered of that kind", name)
	}
	s.optimizer = func(steps int64) (*optim.Optimizer, error) {
		set := []optim.Setting{optim.ClipValue(clipValue), optim.ClipNorm(clipNorm), optim.GlobalClipNorm(globalClip)}
		if given["weight_decay"] {
			set = append(set, optim.Decay(decay))
		}
		if schedule != nil {
			sch, err := schedule(steps)
			if err != nil {
				return nil, at(s.file, n, "%w", err)
			}
			set = append(set, optim.Scheduled(sch))
		}
		switch name {
		case "sgd":
			return optim.SGD(momentum, nesterov, set...), nil
		case "rmsprop":
			return optim.RMSprop(momentum, centered, set...), nil
		}
		return optim.ByName(name, set...)
	}
	_, err := s.optimizer(1) // settings that make no sense are found when the file is read
	return err
}

// schedule reads a rate, or {schedule: cosine, rate: 0.001, …}.
func (s *Spec) schedule(n *yaml.Node) (func(steps int64) (optim.Schedule, error), error) {
	if n.Kind == yaml.ScalarNode {
		var rate float64
		if err := n.Decode(&rate); err != nil || rate < 0 {
			return nil, at(s.file, n, "learning_rate: want a number like 0.001, not %q", n.Value)
		}
		return func(int64) (optim.Schedule, error) { return optim.Constant(rate), nil }, nil
	}
	r, err := mapping(s.file, "learning_rate", n)
	if err != nil {
		return nil, err
	}
	kind, rate, end, factor, warm := "constant", 0.001, 0.0, 0.1, int64(0)
	var bounds []int64
	if err := errors.Join(r.into("schedule", &kind), r.into("rate", &rate), r.into("end", &end), r.into("factor", &factor), r.into("warmup_steps", &warm), r.into("at", &bounds)); err != nil {
		return nil, err
	}
	if err := r.done(); err != nil {
		return nil, err
	}
	kinds := []string{"constant", "step", "cosine", "one_cycle"}
	if !slices.Contains(kinds, kind) {
		return nil, at(s.file, n, "unknown schedule %q%s", kind, known(kind, kinds))
	}
	return func(steps int64) (optim.Schedule, error) {
		var sch optim.Schedule
		switch rest := max(1, steps-warm); kind {
		case "constant":
			sch = optim.Constant(rate)
		case "cosine":
			sch = optim.Cosine(rate, end, rest)
		case "one_cycle":
			sch = optim.OneCycle(rate, rest)
		default:
			var err error
			if sch, err = optim.Step(rate, factor, bounds...); err != nil {
				return nil, err
			}
		}
		if warm > 0 {
			sch = optim.Warmup(warm, sch)
		}
		return sch, nil
	}, nil
}

func (s *Spec) fit(r *reader) error {
	n := r.take("fit")
	if n == nil {
		return nil
	}
	f, err := mapping(s.file, "fit", n)
	if err != nil {
		return err
	}
	if err := errors.Join(f.into("epochs", &s.Fit.Epochs), f.into("batch_size", &s.Fit.BatchSize), f.into("accumulate", &s.Fit.Accumulate)); err != nil {
		return err
	}
	for name, v := range map[string]int{"epochs": s.Fit.Epochs, "batch_size": s.Fit.BatchSize, "accumulate": s.Fit.Accumulate} {
		if v < 1 {
			return at(s.file, n, "fit: %s must be at least 1, not %d", name, v)
		}
	}
	if e := f.take("recompute"); e != nil {
		var on bool
		switch {
		case e.Kind == yaml.ScalarNode && e.Decode(&on) == nil:
			if on {
				s.Fit.Recompute = []string{}
			}
		case e.Kind == yaml.SequenceNode && e.Decode(&s.Fit.Recompute) == nil:
		default:
			return at(s.file, e, "fit: recompute: want true (all Transformer blocks) or a list of layers' names such as [block1, lstm*]")
		}
	}
	if err := s.augment(f.take("augment")); err != nil {
		return err
	}
	if e := f.take("early_stopping"); e != nil {
		c, m := &train.EarlyStopping{Patience: 3}, (*reader)(nil)
		if m, err = mapping(s.file, "early_stopping", e); err != nil {
			return err
		}
		if err := errors.Join(m.into("monitor", &c.Watch), m.into("patience", &c.Patience), m.into("min_delta", &c.MinDelta), m.into("restore_best_weights", &c.Restore), m.done()); err != nil {
			return err
		}
		s.Fit.Callbacks = append(s.Fit.Callbacks, c)
	}
	if e := f.take("reduce_on_plateau"); e != nil {
		c, m := &train.ReduceOnPlateau{Patience: 2}, (*reader)(nil)
		if m, err = mapping(s.file, "reduce_on_plateau", e); err != nil {
			return err
		}
		if err := errors.Join(m.into("monitor", &c.Watch), m.into("patience", &c.Patience), m.into("factor", &c.Factor), m.into("min_delta", &c.MinDelta), m.into("min_lr", &c.MinRate), m.done()); err != nil {
			return err
		}
		s.Fit.Callbacks = append(s.Fit.Callbacks, c)
	}
	if e := f.take("until"); e != nil {
		m, err := mapping(s.file, "until", e)
		if err != nil {
			return err
		}
		if len(m.keys) == 0 {
			return at(s.file, e, "fit: until says at which values training ends, such as {val_accuracy: 0.9}")
		}
		for i := 0; i+1 < len(e.Content); i += 2 {
			c := &train.TargetReached{Watch: e.Content[i].Value}
			if err := m.into(c.Watch, &c.Value); err != nil {
				return err
			}
			s.Fit.Callbacks = append(s.Fit.Callbacks, c)
		}
	}
	return f.done()
}

// blame adds to an error about a layer the line of the file that the layer stands on.
func (s *Spec) blame(err error) error {
	var g *graph.Error
	if !errors.As(err, &g) {
		return fmt.Errorf("%s: %w", s.file, err)
	}
	for _, l := range s.layers {
		if l.layer != nil && (l.layer.Name() == g.Scope || strings.HasPrefix(g.Scope, l.layer.Name()+"/")) {
			e := *g
			e.Site = ""
			return fmt.Errorf("%s:%d: %w", s.file, l.line, &e)
		}
	}
	return fmt.Errorf("%s: %w", s.file, err)
}
