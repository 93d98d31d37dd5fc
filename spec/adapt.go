package spec

import (
	"context"
	"errors"
	"maps"
	"slices"

	"gopkg.in/yaml.v3"

	"github.com/jouleml/joule/compress/lora"
	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// adapted is what a specification says about a model that was trained before, and about making this one smaller:
//
//	transfer: {from: RUN or model.safetensors, load: [conv*], freeze: ["*"], unfreeze: [dense_1], thaw: {2: [dense], 3: [conv*]}, rates: {dense: 0.1}, cache: true}
//	distil:   {teacher: RUN or model.safetensors, temperature: 4, weight: 0.9, hints: [{layer: dense, teacher_layer: dense, kind: attention, weight: 10}]}
//	distil:   {teacher: self, temperature: 4, weight: 0.5}
//	distil:   {teacher: RUN or model.safetensors, texts: teacher, beams: 5}
//	prune:    {method: magnitude, sparsity: 0.9, global: true, pattern: "2:4", start: 0, stop: 0.5, every: 50, skip: [dense_1]}
//	share:    {values: 15, skip: [dense_1]}
//	lora:     {rank: 8, scale: 16, on: ["*/attention/*"], base: int4, group: 64}
//	quantize: {skip: [dense_1]}
type adapted struct {
	node         *yaml.Node // of transfer
	from         string
	load, freeze []string
	unfreeze     []string
	thaw         map[int][]string // by epoch, from 1
	rates        map[string]float64
	cache        bool // frozen layers compute each example once

	teacherNode         *yaml.Node
	teacher             string
	temperature, weight float64
	hints               []train.Hint
	once                bool   // the teacher predicts each example once
	texts               string // what a teacher that writes does: "", wordTeacher or wordBoth
	beams               int    // it writes with

	prune interface {
		train.Wrapper
		train.Callback
		Check() error
	}
	share *prune.Shared

	loraNode *yaml.Node
	lora     *lora.Adapter

	aware *quant.Aware
}

func (s *Spec) adapt(r *reader) error {
	a := &s.adapted
	if n := r.take("transfer"); n != nil {
		a.node = n
		t, err := mapping(s.file, "transfer", n)
		if err != nil {
			return err
		}
		if err := errors.Join(t.into("from", &a.from), t.into("load", &a.load), t.into("freeze", &a.freeze), t.into("unfreeze", &a.unfreeze), t.into("thaw", &a.thaw), t.into("rates", &a.rates), t.into("cache", &a.cache), t.done()); err != nil {
			return err
		}
		if (a.unfreeze != nil || a.thaw != nil) && a.freeze == nil {
			return at(s.file, n, "transfer: unfreeze and thaw are exceptions to freeze, such as freeze: [\"*\"]")
		}
		if a.cache && s.Fit.changing() {
			return at(s.file, n, "transfer: cache: each example is computed once, so it cannot be changed at random (fit: augment)")
		}
		if a.cache && a.freeze == nil {
			return at(s.file, n, "transfer: cache keeps what frozen layers give: freeze says which")
		}
		if a.load != nil && a.from == "" {
			return at(s.file, n, "transfer: load needs from, the run or file that weights come from")
		}
	}
	if n := r.take("distil"); n != nil {
		var temperature, weight *float64
		var beams *int
		t, err := mapping(s.file, "distil", n)
		if err != nil {
			return err
		}
		if err := errors.Join(t.into("teacher", &a.teacher), t.into("temperature", &temperature), t.into("weight", &weight), t.into("hints", &a.hints), t.into("cache", &a.once), t.into("texts", &a.texts), t.into("beams", &beams), t.done()); err != nil {
			return err
		}
		if a.teacher == "" {
			return at(s.file, n, "distil: teacher is missing: a run, a model file, or self")
		}
		a.teacherNode, a.temperature, a.weight, a.beams = n, or(temperature, 4), or(weight, 0.9), or(beams, 5)
		switch {
		case a.texts != "" && a.texts != wordTeacher && a.texts != wordBoth:
			return at(s.file, n, "distil: texts: unknown word %q (known: teacher, the teacher's texts in place of the targets; both, those and the targets)", a.texts)
		case a.texts == "" && beams != nil:
			return at(s.file, n, "distil: beams are those of a teacher that writes: texts: teacher, or both")
		case a.beams < 1:
			return at(s.file, n, "distil: beams must be at least 1, not %d", a.beams)
		case a.texts != "" && (temperature != nil || weight != nil || len(a.hints) > 0 || a.once):
			return at(s.file, n, "distil: texts: the student learns from what the teacher writes, which is kept anyway: temperature, weight, hints and cache are settings of a teacher that predicts")
		case a.texts != "" && a.teacher == wordSelf:
			return at(s.file, n, "distil: texts: a model that is its own teacher has nothing to write before it is trained: teacher names a run or a model file")
		case a.texts != "" && s.Fit.changing():
			return at(s.file, n, "distil: texts: the teacher writes about each example once, so it cannot be changed at random (fit: augment)")
		case a.once && a.teacher == wordSelf:
			return at(s.file, n, "distil: cache: a model that is its own teacher says something else in every epoch")
		case a.once && len(a.hints) > 0:
			return at(s.file, n, "distil: cache: hints need the teacher in every step")
		case a.once && s.Fit.changing():
			return at(s.file, n, "distil: cache: the teacher predicts each example once, so it cannot be changed at random (fit: augment)")
		case a.cache:
			return at(s.file, n, "distil does not go with transfer: cache: the teacher looks at the examples themselves")
		}
	}
	if n := r.take("prune"); n != nil {
		var p prune.Magnitude
		method := "magnitude"
		t, err := mapping(s.file, "prune", n)
		if err != nil {
			return err
		}
		if err := errors.Join(t.into("method", &method), t.into("sparsity", &p.Sparsity), t.into("global", &p.Global), t.into("pattern", &p.Pattern), t.into("start", &p.Start), t.into("stop", &p.Stop), t.into("every", &p.Every), t.into("skip", &p.Skip), t.done()); err != nil {
			return err
		}
		switch method {
		case "magnitude":
			a.prune = &p
		case "movement":
			a.prune = &prune.Movement{Magnitude: p}
		case "snip":
			a.prune = &prune.SNIP{Magnitude: p}
		default:
			return at(s.file, n, "prune: unknown method %q (known: magnitude, movement, snip)", method)
		}
		if err := a.prune.Check(); err != nil {
			return at(s.file, n, "%w", err)
		}
		s.Fit.Callbacks = append(s.Fit.Callbacks, a.prune)
	}
	if n := r.take("share"); n != nil {
		p := &prune.Shared{}
		t, err := mapping(s.file, "share", n)
		if err != nil {
			return err
		}
		if err := errors.Join(t.into("values", &p.Values), t.into("skip", &p.Skip), t.done()); err != nil {
			return err
		}
		if err := p.Check(); err != nil {
			return at(s.file, n, "%w", err)
		}
		if a.prune != nil {
			return at(s.file, n, "share does not go with prune in one training: train with prune first, and begin with share at its result (transfer); zeros stay zeros")
		}
		if a.from == "" {
			return at(s.file, n, "share begins at weights that are there: transfer says from which run or file")
		}
		a.share = p
		s.Fit.Callbacks = append(s.Fit.Callbacks, p)
	}
	if n := r.take("lora"); n != nil {
		l := &lora.Adapter{Rank: 8}
		t, err := mapping(s.file, "lora", n)
		if err != nil {
			return err
		}
		base := ""
		if err := errors.Join(t.into("rank", &l.Rank), t.into("scale", &l.Scale), t.into("on", &l.On), t.into("base", &base), t.into("group", &l.Group), t.done()); err != nil {
			return err
		}
		switch base {
		case "", "f32":
		case "int8":
			l.Bits = 8
		case "int4":
			l.Bits = 4
		default:
			return at(s.file, n, "lora: unknown base %q (known: f32, int8, int4)", base)
		}
		if err := l.Check(); err != nil {
			return at(s.file, n, "%w", err)
		}
		switch {
		case l.Bits != 0 && a.from == "" && s.backbone() == nil:
			return at(s.file, n, "lora: base: weights of few bits stay as they are: transfer says from which run or file they come")
		case l.Bits != 0 && (a.prune != nil || a.share != nil):
			return at(s.file, n, "lora: base does not go with prune or share in one training: train with one, and begin the other at its result (transfer)")
		case l.Bits != 0 && a.cache:
			return at(s.file, n, "lora: base does not go with transfer: cache: what frozen layers give would change")
		}
		a.loraNode, a.lora = n, l
	}
	if n := r.take("quantize"); n != nil {
		q := &quant.Aware{}
		t, err := mapping(s.file, "quantize", n)
		if err != nil {
			return err
		}
		if err := errors.Join(t.into("skip", &q.Skip), t.done()); err != nil {
			return err
		}
		if a.prune != nil || a.lora != nil || a.share != nil {
			return at(s.file, n, "quantize does not go with prune, share or lora: rounding, masks and low-rank changes of one kernel are not joined yet; train with one, and begin the other at its result (transfer)")
		}
		a.aware = q
		s.Fit.Callbacks = append(s.Fit.Callbacks, q)
	}
	return nil
}

// Quantized is the model of bytes of a trained one, where the specification says quantize; else m itself. Examples are the training part of Ready.
func (s *Spec) Quantized(ctx context.Context, m *train.Model, examples data.Dataset) (*train.Model, error) {
	if s.adapted.aware == nil {
		return m, nil
	}
	if s.late != nil { // as the model wants them
		var err error
		if examples, err = s.late.Apply(examples); err != nil {
			return nil, err
		}
	}
	q, _, err := s.adapted.aware.Convert(ctx, m, examples)
	return q, err
}

// Rounds reports whether Quantized makes another model.
func (s *Spec) Rounds() bool { return s.adapted.aware != nil }

func (s *Spec) resolve(n *yaml.Node, ref string) (string, error) {
	if s.Resolve == nil {
		return ref, nil
	}
	path, err := s.Resolve(ref)
	if err != nil {
		return "", at(s.file, n, "%w", err)
	}
	return path, nil
}

// adapting are the options of Compile.
func (s *Spec) adapting() ([]train.Option, error) {
	a := &s.adapted
	out := []train.Option{train.Freeze(a.freeze...), train.Unfreeze(a.unfreeze...)}
	for _, e := range slices.Sorted(maps.Keys(a.thaw)) {
		out = append(out, train.Thaw(e, a.thaw[e]...))
	}
	for _, p := range slices.Sorted(maps.Keys(a.rates)) {
		out = append(out, train.RateFactor(p, a.rates[p]))
	}
	if a.lora != nil {
		out = append(out, train.Wrapped(a.lora))
	}
	if a.prune != nil {
		out = append(out, train.Wrapped(a.prune))
	}
	if a.share != nil {
		out = append(out, train.Wrapped(a.share), train.RateFactor("codebook/*", 0.1))
	}
	if a.aware != nil {
		out = append(out, train.Wrapped(a.aware))
	}
	switch {
	case a.texts != "": // the data says what the teacher has to say
	case a.teacher == wordSelf:
		out = append(out, train.Distil(train.Teacher{Self: true, Temperature: a.temperature, Weight: a.weight, Hints: a.hints}))
	case a.once && s.Once:
		out = append(out, train.Distil(train.Teacher{Cached: true, Temperature: a.temperature, Weight: a.weight}))
	case a.teacher != "":
		m, err := s.openTeacher()
		if err != nil {
			return nil, err
		}
		out = append(out, train.Distil(train.Teacher{Model: m, Temperature: a.temperature, Weight: a.weight, Hints: a.hints}))
	}
	return out, nil
}

// wordSelf in place of a teacher is the model itself, as it was an epoch ago.
const wordSelf = "self"

// What the student of a teacher that writes learns from: the teacher's texts, or those and the targets.
const (
	wordTeacher = "teacher"
	wordBoth    = "both"
)

// or is *p, or standard where p is nil.
func or[T any](p *T, standard T) T {
	if p == nil {
		return standard
	}
	return *p
}

// Texts says that the teacher writes about the sources of the training data, with so many beams, and whether the student learns from the targets too. beams is 0 where none writes.
func (s *Spec) Texts() (beams int, both bool) {
	if s.adapted.texts == "" {
		return 0, false
	}
	return s.adapted.beams, s.adapted.texts == wordBoth
}

// AtTeacher says where in the specification the teacher is that err is about.
func (s *Spec) AtTeacher(err error) error { return at(s.file, s.adapted.teacherNode, "%w", err) }

// Cached reports whether frozen layers compute each example once: the caller trains the head of train.Model.Divide on transfer.Features.
func (s *Spec) Cached() bool { return s.adapted.cache && s.Once }

// Teacher is the model whose predictions the training data needs as a second target (transfer.Predictions), or that writes about its sources (Texts), nil where there is none such.
func (s *Spec) Teacher(opts ...train.Option) (*train.Model, error) {
	if !s.adapted.once && s.adapted.texts == "" || !s.Once {
		return nil, nil
	}
	return s.openTeacher(append(opts, train.Fixed())...)
}

func (s *Spec) openTeacher(opts ...train.Option) (*train.Model, error) {
	a := &s.adapted
	path, err := s.resolve(a.teacherNode, a.teacher)
	if err != nil {
		return nil, err
	}
	m, err := train.Load(path, opts...)
	if err != nil {
		return nil, at(s.file, a.teacherNode, "teacher: %w", err)
	}
	return m, nil
}

// load takes over weights, and brings those of which only low-rank changes are trained to few bits where the specification says so.
func (s *Spec) load(m *train.Model) error {
	if err := s.take(m); err != nil {
		return err
	}
	if s.adapted.lora == nil {
		return nil
	}
	if _, err := s.adapted.lora.Prepare(context.Background(), m); err != nil {
		return at(s.file, s.adapted.loraNode, "%w", err)
	}
	return nil
}

func (s *Spec) take(m *train.Model) error {
	a := &s.adapted
	if s.Resumed {
		return nil
	}
	if b := s.backbone(); b != nil {
		if err := b.weights(s, m); err != nil {
			return err
		}
	}
	if a.from == "" {
		return nil
	}
	path, err := s.resolve(a.node, a.from)
	if err != nil {
		return err
	}
	state, err := transfer.State(path)
	if err != nil {
		return at(s.file, a.node, "transfer: %w", err)
	}
	if s.Taken, s.Left, err = m.Take(state, path, a.load...); err != nil {
		return at(s.file, a.node, "transfer: %w", err)
	}
	return nil
}
