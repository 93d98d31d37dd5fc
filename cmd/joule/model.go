package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/augment"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/data/folder"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/generate"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/train/runs"
	"github.com/jouleml/joule/transfer"
)

// modelFlags are shared by the commands that take a trained model.
type modelFlags struct {
	out     string
	threads int
	json    bool
	on      backendFlags
}

func (f *modelFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.out, "out", runs.DefaultRoot, "folder of all runs")
	c.Flags().IntVar(&f.threads, "threads", 0, "threads to use (default: one for each CPU)")
	c.Flags().BoolVar(&f.json, "json", false, "print JSON")
}

// file is the model file of a run, or ref itself if that is one.
func (f modelFlags) file(ref string) (string, error) {
	if strings.HasSuffix(ref, ".safetensors") || transfer.IsBERT(ref) {
		return ref, nil
	}
	if _, err := catalog.FindModel(ref); err == nil {
		return catalog.ModelDir(ref)
	}
	info, err := runs.Open(f.out).Get(ref)
	if err != nil {
		return "", err
	}
	path := filepath.Join(info.Dir, modelFile)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(info.Dir, searchFile)); err == nil {
			if info.State == runs.Done {
				return "", fmt.Errorf("run %s is a search of joule compress that found no model; joule runs lists its candidates", info.ID)
			}
			return "", fmt.Errorf("run %s is a search of joule compress, which has no model yet: it is %s; joule compress --resume %s%s brings it to its end", info.ID, info.State, info.ID, outFlag(f.out))
		}
		return "", fmt.Errorf("run %s has no model yet: it is %s; joule train --resume %s%s brings it to its end", info.ID, info.State, info.ID, outFlag(f.out))
	}
	return path, nil
}

// load opens the model of a run, or a model file, and says which data it was trained on ("" of a file).
func (f *modelFlags) load(ref string, opts ...train.Option) (m *train.Model, data string, err error) {
	m, _, of, err := f.open(ref, opts...)
	if of != nil {
		data = of.Data
	}
	return m, data, err
}

// open is load that also gives the model's file, and the whole specification (nil of a file).
func (f *modelFlags) open(ref string, opts ...train.Option) (m *train.Model, path string, of *spec.Spec, err error) {
	if f.threads < 0 {
		return nil, "", nil, usageError{errors.New("--threads must not be negative")}
	}
	own, err := f.on.options(train.Threads(f.threads))
	if err != nil {
		return nil, "", nil, err
	}
	opts = append(opts, own...)
	if path, err = f.file(ref); err != nil {
		return nil, "", nil, err
	}
	if path == ref || transfer.IsBERT(path) {
		if transfer.IsBERT(path) {
			opts = append(opts, train.Fixed())
		}
		m, err = transfer.Open(path, opts...)
		return m, path, nil, err
	}
	info, err := runs.Open(f.out).Get(ref)
	if err != nil {
		return nil, "", nil, err
	}
	if m, err = train.Load(path, opts...); err != nil {
		return nil, "", nil, err
	}
	if s, err := spec.Parse([]byte(info.Spec), "the specification of run "+info.ID); err == nil {
		of = s
	}
	return m, path, of, nil
}

// subject is a trained model with the data that it is measured on.
type subject struct {
	model *train.Model
	path  string // its file
	data  string // the name of the data, "" if there are none
	split spec.Split
	spec  *spec.Spec // of its run, nil of a file
	set   *data.Set  // as the model wants them; nil if there are none
}

// subject loads a model and opens the data set on, or, where that is "", the one that it was trained on, of that the same examples, if its run says so.
func (f *modelFlags) subject(ref, on string, opts ...train.Option) (*subject, error) {
	m, path, of, err := f.open(ref, opts...)
	if err != nil {
		return nil, err
	}
	s := &subject{model: m, path: path, data: on, spec: of}
	if on == "" && of != nil {
		s.data, s.split = of.Data, of.Split
	}
	if s.data != "" {
		if s.set, err = openLike(s.data, m); err == nil {
			s.set = s.split.Apply(s.set)
		}
	}
	return s, err
}

// changes are those that its run makes to training examples at random, for examples that are as the model wants them: what learns on sees them changed too.
func (s *subject) changes() (augmented []data.Transform, mixup float64) {
	if s.spec == nil {
		return nil, 0
	}
	augmented = s.spec.Fit.Augment
	if n := s.model.Spec.Norm; n != nil {
		augmented = augment.Within(*n, augmented...)
	}
	return augmented, s.spec.Fit.Mixup
}

// changed names the changes, for people: " from examples changed at random (flip, mixup 0.2)"; "" where there are none.
func (s *subject) changed() string {
	if ts, mixup := s.changes(); len(ts) == 0 && mixup == 0 {
		return ""
	}
	return " from examples changed at random (" + s.spec.Changes() + ")"
}

// beside names a file that is made of the model where nobody has named one.
func (s *subject) beside(kind string) string {
	return strings.TrimSuffix(s.path, filepath.Ext(s.path)) + "." + kind + ".safetensors"
}

func evalCmd() *cobra.Command {
	var f modelFlags
	var on string
	rf := rankFlags{deadline: dist.DefaultDeadline}
	var counters meterFlag
	var batch, write int
	var o generate.Options
	c := &cobra.Command{
		Use:   "eval [RUN | model.safetensors]",
		Short: "Evaluate a trained model on the test part of a data set",
		Long:  "Eval measures loss and metrics of the model of a run (its id, the beginning of it, or last, the default) or of a file. Ranks that mpirun has started share the data; with --tensor they share the model too.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if batch < 1 {
				return usageError{fmt.Errorf("--batch %d must be at least 1", batch)}
			}
			r, err := rf.join()
			if err != nil {
				return err
			}
			defer func() { err = r.leave(err) }()
			f.threads = r.threads(f.threads, c.ErrOrStderr())
			opts, err := rf.together(r)
			if err != nil {
				return err
			}
			if opts == nil {
				opts = append(opts, train.Across(train.Parallel{Comm: r.comm}))
			}
			s, err := f.subject(first(args, "last"), on, opts...)
			if err != nil {
				return err
			}
			m, set := s.model, s.set
			if set == nil {
				return usageError{errors.New("--data says which data set to evaluate on")}
			}
			meter, err := r.meter(&counters)
			if err != nil {
				return err
			}
			a, err := m.StartAccount(meter)
			if err != nil {
				return err
			}
			logs, err := m.Evaluate(c.Context(), set.Test, batch)
			if err != nil {
				return err
			}
			l, err := a.Ledger()
			if err != nil {
				return err
			}
			if l, err = r.bill(l); err != nil {
				return err
			}
			l.Examples = int64(set.Test.Len())
			var js []judged
			var test []pairs.Pair
			var written writeBill
			if answers(m) && write >= 0 {
				if o.Beams > 1 {
					o.LengthPenalty = 1
				}
				if js, test, written, err = judge(c, r, m, set, write, o, meter); err != nil {
					return err
				}
				if written.ledger != nil {
					l.Merge(written.ledger)
				}
			}
			if !r.first() {
				return nil
			}
			if f.json {
				out := map[string]any{"examples": set.Test.Len(), "seconds": l.Seconds, "joules": l.Joules.Value, "joules_low": l.Joules.Low, "joules_high": l.Joules.High, "energy_source": l.Joules.Source.String()}
				for _, v := range logs {
					out[v.Name] = v.Value
				}
				if js != nil {
					out["written"], out["writing"], out["texts"] = js, written, textsOf(js[0], test)
				}
				return json.NewEncoder(c.OutOrStdout()).Encode(out)
			}
			for _, v := range logs {
				fmt.Fprintf(c.OutOrStdout(), "%-12s %.4f\n", v.Name, v.Value)
			}
			if js != nil {
				showJudged(c.OutOrStdout(), js, test)
				written.show(c.OutOrStdout())
			}
			fmt.Fprintf(c.OutOrStdout(), "\n%s", l.Table())
			return nil
		},
	}
	f.add(c)
	f.on.add(c)
	rf.addTensor(c.Flags())
	c.Flags().IntVar(&write, "write", 0, "of a model that writes texts: let it write so many of the test part and score them (0: all, -1: none)")
	c.Flags().IntVar(&o.Beams, "beams", 1, "of a model that writes texts: search with so many continuations at a time")
	c.Flags().StringVar(&on, "data", "", "the data set (default: the one that the run was trained on)")
	c.Flags().IntVar(&batch, "batch", 128, "examples at a time")
	counters.add(c.Flags())
	return c
}

func first(args []string, otherwise string) string {
	if len(args) > 0 {
		return args[0]
	}
	return otherwise
}

func predictCmd() *cobra.Command {
	var f modelFlags
	var ref string
	var invert bool
	var top int
	var o generate.Options
	rf := rankFlags{deadline: dist.DefaultDeadline}
	c := &cobra.Command{
		Use:   "predict FILE…",
		Short: "Say what is on pictures (PNG or JPEG), one line a file, or what class a text is of; translate or sum up texts, one line each",
		Long:  "Predict takes pictures, and with a model that reads texts (one that says of what class a text is, or one that writes others: translate, summarize) files of texts, one a line (- is the standard input): it prints a line for each. Ranks that mpirun has started share the files, or the lines; with --tensor they share the model too.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			r, err := rf.join()
			if err != nil {
				return err
			}
			defer func() { err = r.leave(err) }()
			f.threads = r.threads(f.threads, c.ErrOrStderr())
			opts, err := rf.together(r)
			if err != nil {
				return err
			}
			m, _, err := f.load(ref, opts...)
			if err != nil {
				return err
			}
			if answers(m) {
				var texts []string
				if r.first() { // a launcher gives the standard input to rank 0
					texts, err = lines(args, c.InOrStdin())
				}
				if texts, err = share(r, texts, err); err != nil {
					return err
				}
				if len(texts) == 0 {
					return fmt.Errorf("%s: there is no text: one line each is wanted", strings.Join(args, ", "))
				}
				if o.Beams > 1 {
					o.LengthPenalty = 1
				}
				return f.answer(c, r, m, texts, o, false, meterFlag{})
			}
			if classifies(m) {
				return f.classify(c, r, m, args, top)
			}
			return r.inOrder(c.OutOrStdout(), len(args), func(w io.Writer, lo, hi int) error { return f.predict(c, w, m, args[lo:hi], top, invert) })
		},
	}
	f.add(c)
	f.on.add(c)
	rf.addTensor(c.Flags())
	c.Flags().StringVar(&ref, "run", "last", "the run, or a model file, to predict with")
	c.Flags().BoolVar(&invert, "invert", false, "take white for black: for dark digits on light paper, since MNIST's are light on dark")
	c.Flags().IntVar(&o.Beams, "beams", 1, "of texts: search with so many continuations at a time")
	c.Flags().IntVar(&top, "top", 3, "how many classes to print")
	return c
}

// guess is a class and its probability.
type guess struct {
	Class       string  `json:"class"`
	Probability float64 `json:"probability"`
}

// guesses are the classes of the greatest probabilities.
func guesses(m *train.Model, y []float32, top int) []guess {
	var best []guess
	p := append([]float32(nil), y...)
	for range min(max(1, top), len(p)) {
		k := 0
		for i, v := range p {
			if v > p[k] {
				k = i
			}
		}
		name := fmt.Sprint(k)
		if k < len(m.Spec.ClassNames) {
			name = m.Spec.ClassNames[k]
		}
		best = append(best, guess{name, float64(p[k])})
		p[k] = -1
	}
	return best
}

// classify says what class texts are of, which the ranks share.
func (f *modelFlags) classify(c *cobra.Command, r *ranks, m *train.Model, files []string, top int) error {
	var texts []string
	var err error
	if r.first() { // a launcher gives the standard input to rank 0
		texts, err = textLines(files, c.InOrStdin())
	}
	if texts, err = share(r, texts, err); err != nil {
		return err
	}
	return r.inOrder(c.OutOrStdout(), len(texts), func(w io.Writer, lo, hi int) error {
		all, err := overTexts(m, texts[lo:hi], 32)
		if err != nil {
			return err
		}
		for i, s := range texts[lo:hi] {
			best := guesses(m, all[i], top)
			if f.json {
				if err := json.NewEncoder(w).Encode(map[string]any{"text": s, "guesses": best}); err != nil {
					return err
				}
				continue
			}
			for _, g := range best {
				fmt.Fprintf(w, "%s %.1f%%  ", g.Class, 100*g.Probability)
			}
			fmt.Fprintln(w, s)
		}
		return nil
	})
}

func (f *modelFlags) predict(c *cobra.Command, w io.Writer, m *train.Model, files []string, top int, invert bool) error {
	in := m.Spec.Inputs
	if len(in) != 1 || len(in[0].Shape) != 3 || in[0].DType != dtype.F32 {
		return errors.New("predict takes models for pictures; this one takes something else")
	}
	sh := in[0].Shape
	x := tensor.New(dtype.F32, append([]int{1}, sh...)...)
	for _, file := range files {
		if err := c.Context().Err(); err != nil {
			return err
		}
		if err := folder.ReadImage(file, folder.Size{Height: sh[0], Width: sh[1], Channels: sh[2]}, x.F32()); err != nil {
			return err
		}
		if invert {
			for i, v := range x.F32() {
				x.F32()[i] = 1 - v
			}
		}
		if m.Spec.Norm != nil {
			m.Spec.Norm.Scale(x.F32())
		}
		y, err := m.PredictBatch(x)
		if err != nil {
			return err
		}
		best := guesses(m, y.F32(), top)
		if f.json {
			if err := json.NewEncoder(w).Encode(map[string]any{"file": file, "guesses": best}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%s:", file)
		for _, g := range best {
			fmt.Fprintf(w, "  %s %.1f%%", g.Class, 100*g.Probability)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// compiled is a model to look at: of a run or model file, or of a preset or specification, not trained.
func (f *modelFlags) compiled(ctx context.Context, ref string) (*train.Model, *spec.Spec, error) {
	if s, err := spec.Open(ref); err == nil {
		set, err := openData(s, f.out)
		if err != nil {
			return nil, nil, err
		}
		opts, err := f.on.options(train.Threads(f.threads))
		if err != nil {
			return nil, nil, err
		}
		m, err := s.Compile(set.Test.Spec(), 1, opts...)
		return m, s, err
	} else if strings.HasSuffix(ref, ".yaml") || strings.HasSuffix(ref, ".yml") {
		return nil, nil, err
	}
	m, _, err := f.load(ref)
	return m, nil, err
}

func summaryCmd() *cobra.Command {
	var f modelFlags
	c := &cobra.Command{
		Use:   "summary [preset | spec.yaml | RUN | model.safetensors]",
		Short: "Print the layers of a model: shapes, parameters, arithmetic",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			m, _, err := f.compiled(c.Context(), first(args, "mnist"))
			if err != nil {
				return err
			}
			s, err := m.Summary()
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(c.OutOrStdout()).Encode(s)
			}
			fmt.Fprint(c.OutOrStdout(), s)
			return nil
		},
	}
	f.add(c)
	return c
}
