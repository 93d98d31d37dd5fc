package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func quantizeCmd() *cobra.Command {
	var f modelFlags
	var o quant.Options
	var wo quant.WeightOptions
	var on, to, weights, method, calibration, drop string
	var report, equalize, force bool
	c := &cobra.Command{
		Use:   "quantize [RUN | model.safetensors]",
		Short: "Make a model of 8-bit integers out of a trained one",
		Long: "With --weights, quantize brings matrices of weights (dense layers, attention, recurrent layers, embeddings) to 8 or 4 bits, and activations to 8 bits at run time. Without, quantize measures the ranges of activations on training examples, replaces dense layers and convolutions by layers of 8-bit integers, writes the new model beside the old one (or to --to), and prints both side by side: " +
			"metrics on the test data, size, time and energy of a prediction. It says so where the new model is worse. Layers that would make the model slower as bytes, by predictions of 1 and 32 test examples, are left in floats, and a model that would be slower all the same is refused; --force quantizes them too.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := writable(to); err != nil {
				return err
			}
			if o.Examples < 1 {
				return usageError{fmt.Errorf("--examples %d must be at least 1", o.Examples)}
			}
			s, err := f.subject(first(args, "last"), on)
			if err != nil {
				return err
			}
			m, set := s.model, s.set
			if set == nil {
				return usageError{errors.New("--data says which data set to measure on")}
			}
			kind := cmp.Or(weights, "int8")
			name := kind
			if weights != "" { // not the name of the model whose activations are bytes too
				name = "weights-" + weights
			}
			to := cmp.Or(to, s.beside(name))
			var q *train.Model
			var r *quant.Report
			var tried []quant.Tried
			switch weights {
			case "":
				for _, flag := range []string{"method", "group", "smooth"} {
					if c.Flags().Changed(flag) {
						return usageError{fmt.Errorf("--%s goes with --weights", flag)}
					}
				}
				limit := math.Inf(1)
				if drop != "" {
					if limit, err = parseShare("max-drop", drop); err != nil {
						return usageError{err}
					}
				}
				o.Calibration = quant.Calibration(calibration)
				from := m
				if equalize {
					pairs := 0
					if from, pairs, err = quant.Equalize(m); err != nil {
						return err
					}
					if pairs == 0 {
						fmt.Fprintln(c.ErrOrStderr(), "--equalize: no two products follow each other with only a rectifier, a pooling or a flattening between them; nothing was done")
					}
				}
				if report || drop != "" {
					var effects []quant.Effect
					q, r, effects, err = quant.Mixed(c.Context(), from, set.Train, heldOut(set.Train), o, limit)
					if !f.json {
						printEffects(c.OutOrStdout(), effects)
					}
					for _, e := range effects {
						if e.Kept {
							o.Keep = append(o.Keep, e.Layer)
						}
					}
				} else if force {
					q, r, err = quant.Static(c.Context(), from, set.Train, o)
				}
				if err == nil && !force {
					if q, r, tried, err = quant.Faster(c.Context(), from, set.Train, o, quant.Clock(set.Test, quantizedBatches[:2]...)); errors.Is(err, quant.ErrSlower) {
						err = fmt.Errorf("%w (batches of 1 and 32); --force makes it all the same, --keep and --weights are other ways", err)
					}
				}
			case "int8", "int4":
				for _, flag := range []string{"clip", "calibration", "symmetric", "per-tensor", "correct", "equalize", "report", "max-drop", "force"} {
					if c.Flags().Changed(flag) {
						return usageError{fmt.Errorf("--%s does not go with --weights: activations have their ranges at run time", flag)}
					}
				}
				if wo.Bits = 8; weights == "int4" {
					wo.Bits = 4
				}
				wo.Method, wo.Keep = quant.Method(method), o.Keep
				if c.Flags().Changed("examples") {
					wo.Examples = o.Examples
				}
				q, r, err = quant.Weights(c.Context(), m, set.Train, wo)
			default:
				return usageError{fmt.Errorf("--weights %s: int8 and int4 are known", weights)}
			}
			if err != nil {
				return err
			}
			if err := q.SavePlain(to); err != nil {
				return err
			}
			before, err := sideOf(c, m, set)
			if err != nil {
				return err
			}
			after, err := sideOf(c, q, set)
			if err != nil {
				return err
			}
			before.Bytes, after.Bytes = r.Bytes()
			if f.json {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"file": to, "report": r, "before": before, "after": after, "cosine": likeness(before, after), "tried": tried})
			}
			printQuantized(c, r, before, after, kind)
			printTried(c.OutOrStdout(), tried)
			size, err := sizeOf(to)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "\nwritten to %s (%s)\n", to, energy.SI(size, "B"))
			return nil
		},
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&on, "data", "", "the data set (default: the one that the run was trained on)")
	fs.StringVar(&to, "to", "", "the file to write (default: the model's name with .int8, or .weights-int8 or .weights-int4 with --weights)")
	fs.IntVar(&o.Examples, "examples", 512, "training examples to measure ranges on")
	fs.Float64Var(&o.Clip, "clip", 0, "share of activations that may lie outside of the range on each side, such as 0.0001")
	fs.StringArrayVar(&o.Keep, "keep", nil, "leave layers whose names match as they are (may be given several times)")
	fs.StringVar(&calibration, "calibration", "", "how ranges are chosen: minmax (default), percentile (default with --clip), mse or entropy")
	fs.BoolVar(&o.Symmetric, "symmetric", false, "ranges of activations have zero in their middle")
	fs.BoolVar(&o.PerTensor, "per-tensor", false, "one scale for all weights of a layer, not one for each unit or filter")
	fs.BoolVar(&o.Correct, "correct", false, "correct biases for what rounding weights does on average")
	fs.BoolVar(&equalize, "equalize", false, "first scale channels so that layers that follow each other have weights of one size")
	fs.BoolVar(&force, "force", false, "quantize layers, and the model, even if that makes it slower here")
	fs.BoolVar(&report, "report", false, "print how sensitive each layer is, on training examples held out")
	fs.StringVar(&drop, "max-drop", "", "leave the most sensitive layers in floats until the first metric drops by no more, such as 0.5% (a difference of accuracy; a share of a loss)")
	fs.StringVar(&weights, "weights", "", "bring matrices of weights to int8 or int4")
	fs.StringVar(&method, "method", "rtn", "how weights are chosen: rtn (nearest), gptq or awq, which look at examples")
	fs.IntVar(&wo.Group, "group", 0, "weights that share a scale, a multiple of 8 (default: 64 of int4, all of an output of int8)")
	fs.Float64Var(&wo.Smooth, "smooth", 0, "move outliers from activations to weights with this exponent, such as 0.5 (SmoothQuant)")
	return c
}

// sizeOf is how many bytes a file has.
func sizeOf(path string) (float64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()), nil
}

// heldOut is the last thousand examples of a data set, at most half of it: others than those that ranges are measured on, if there are enough.
func heldOut(ds data.Dataset) data.Dataset {
	n := min(1000, ds.Len()/2)
	idx := make([]int, n)
	for i := range idx {
		idx[i] = ds.Len() - n + i
	}
	out, err := data.Subset(ds, idx)
	if err != nil {
		return ds
	}
	return out
}

// parseShare reads 0.5% or 0.005.
func parseShare(flag, s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v < 1) {
		return 0, fmt.Errorf("--%s %s must be a share such as 0.5%% or 0.005", flag, s)
	}
	return v, nil
}

// printEffects lists layers by their sensitivity.
func printEffects(w io.Writer, effects []quant.Effect) {
	fmt.Fprintf(w, "%-22s %14s %12s\n", "quantized alone", "loss", "drop")
	for _, e := range effects {
		kept := ""
		if e.Kept {
			kept = "  stays in floats"
		}
		fmt.Fprintf(w, "%-22s %+14.5f %+12.4f%s\n", e.Layer, e.Loss, e.Drop, kept)
	}
	fmt.Fprintln(w)
}

// side is one of the two models.
type side struct {
	Metrics []train.Log        `json:"metrics"`
	Bytes   int                `json:"bytes"`
	MS      map[string]float64 `json:"ms"`                  // median of a prediction, by batch
	Joules  map[string]float64 `json:"joules"`              // estimated for an example, by batch
	Decode  float64            `json:"decode_ms,omitempty"` // median of a token of one text, of a language model

	vectors [][]float32 // of the first test examples, of a model that makes vectors of texts
}

// cosines is how alike the vectors of two models are.
type cosines struct {
	Texts int     `json:"texts"`
	Mean  float64 `json:"mean"`
	Least float64 `json:"least"`
}

// likeness compares the vectors of two models, nil where they make none.
func likeness(a, b side) *cosines {
	if a.vectors == nil {
		return nil
	}
	c := &cosines{Texts: len(a.vectors), Least: 1}
	for i, v := range a.vectors {
		x := cosine(v, b.vectors[i])
		c.Mean, c.Least = c.Mean+x/float64(len(a.vectors)), min(c.Least, x)
	}
	return c
}

// vectorsOf are the vectors of the first test examples.
func vectorsOf(m *train.Model, ds data.Dataset) ([][]float32, error) {
	const some = 32
	var out [][]float32
	err := data.Each(data.Take(ds, min(ds.Len(), 256)/some*some), some, func(_ int, x, _ []*tensor.Tensor) error {
		v, err := m.PredictBatch(x...)
		if err != nil {
			return err
		}
		for i := range some {
			out = append(out, slices.Clone(v.Slice(i, i+1).F32()))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%d test examples are too few to compare vectors: at least %d", ds.Len(), some)
	}
	return out, nil
}

var quantizedBatches = []int{1, 32, 128}

// sideOf evaluates a model and measures its predictions.
func sideOf(c *cobra.Command, m *train.Model, set *data.Set) (side, error) {
	s := side{MS: map[string]float64{}, Joules: map[string]float64{}}
	var err error
	if embeds(m) {
		s.vectors, err = vectorsOf(m, set.Test)
	} else {
		s.Metrics, err = m.Evaluate(c.Context(), set.Test, 128)
	}
	if err != nil {
		return s, err
	}
	for _, n := range quantizedBatches {
		if n > set.Test.Len() {
			break
		}
		x, y := set.Spec().Tensors(n)
		idx := make([]int, n)
		for i := range idx {
			idx[i] = i
		}
		if err := set.Test.Fill(idx, x, y); err != nil {
			return s, err
		}
		for range 5 { // warm
			if _, err := m.PredictBatch(x...); err != nil {
				return s, err
			}
		}
		// Of some windows the one of fewest joules counts, as in a search: whatever else the machine does can only add to it.
		const windows, window = 5, 200 * time.Millisecond
		var ms []float64
		least := math.Inf(1)
		for range windows {
			a, err := m.StartAccount(nil)
			if err != nil {
				return s, err
			}
			k := 0
			for start := time.Now(); k < 3 || k < 400 && time.Since(start) < window; k++ {
				t := time.Now()
				if _, err := m.PredictBatch(x...); err != nil {
					return s, err
				}
				ms = append(ms, time.Since(t).Seconds()*1e3)
				if err := c.Context().Err(); err != nil {
					return s, err
				}
			}
			l, err := a.Ledger()
			if err != nil {
				return s, err
			}
			least = min(least, l.Joules.Value/float64(n*k))
		}
		slices.Sort(ms)
		key := fmt.Sprint(n)
		s.MS[key] = ms[len(ms)/2]
		s.Joules[key] = least
	}
	s.Decode, err = decodeMS(c, m)
	return s, err
}

// decodeMS is the median time of a token, 0 of a model that writes no text.
func decodeMS(c *cobra.Command, m *train.Model) (float64, error) {
	d, err := m.Decoder(1, 64)
	if err != nil {
		return 0, nil
	}
	var ms []float64
	for start := time.Now(); len(ms) < 1000 && time.Since(start) < time.Second; {
		if d.Len() == d.Room() {
			d.Reset()
		}
		t := time.Now()
		if _, err := d.Feed([]int32{1}); err != nil {
			return 0, err
		}
		ms = append(ms, time.Since(t).Seconds()*1e3)
		if err := c.Context().Err(); err != nil {
			return 0, err
		}
	}
	slices.Sort(ms)
	return ms[len(ms)/2], nil
}

func printQuantized(c *cobra.Command, r *quant.Report, before, after side, kind string) {
	w := c.OutOrStdout()
	if slices.ContainsFunc(r.Layers, func(l quant.Layer) bool { return l.Bits != 0 }) {
		printWeights(w, r)
	} else {
		printLayers(w, r)
	}
	for _, v := range r.Warnings {
		fmt.Fprintf(w, "warning: %s\n", v)
	}
	fmt.Fprintf(w, "\n%-28s %12s %12s %9s\n", "", "f32", kind, "ratio")
	if l := likeness(before, after); l != nil {
		fmt.Fprintf(w, "%-28s %12s %12.5f   least %.5f, %d texts\n", "cosine of the vectors", "", l.Mean, l.Least, l.Texts)
	}
	printSides(w, before, after)
}

// printTried says which layers stayed in floats for the sake of time.
func printTried(w io.Writer, tried []quant.Tried) {
	for _, t := range tried {
		if t.Kept {
			fmt.Fprintf(w, "%s in floats: the model is %.2f times as fast so (--force quantizes all)\n", strings.Join(t.Layers, " and "), t.Gain)
		}
	}
}

// printWeights lists matrices of weights.
func printWeights(w io.Writer, r *quant.Report) {
	fmt.Fprintf(w, "%d examples looked at\n\n%-40s %5s %14s %10s %10s\n", r.Examples, "weights", "bits", "weights/error", "before", "after")
	for _, l := range r.Layers {
		if l.Bits == 0 {
			fmt.Fprintf(w, "%-40s %5s %14s %10s %10s  %s\n", l.Name, "-", "", energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"), l.Why)
			continue
		}
		fmt.Fprintf(w, "%-40s %5d %11.0f dB %10s %10s\n", l.Name, l.Bits, l.NoiseRatio, energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"))
	}
}

// printLayers lists layers of bytes.
func printLayers(w io.Writer, r *quant.Report) {
	fmt.Fprintf(w, "ranges measured on %d examples\n\n%-22s %-7s %24s %12s %10s %10s\n", r.Examples, "layer", "bytes", "input from … to", "weights/error", "before", "after")
	for _, l := range r.Layers {
		if !l.Bytes {
			fmt.Fprintf(w, "%-22s %-7s %24s %12s %10s %10s  %s\n", l.Name, "-", "", "", energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"), l.Why)
			continue
		}
		fmt.Fprintf(w, "%-22s %-7s %24s %9.0f dB %10s %10s\n", l.Name, "yes", fmt.Sprintf("%.3g … %.3g", l.Lo, l.Hi), l.NoiseRatio, energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"))
	}
}

// printSides compares the two models.
func printSides(w io.Writer, before, after side) {
	for i, v := range before.Metrics {
		fmt.Fprintf(w, "%-28s %12.4f %12.4f %+9.4f\n", "test "+v.Name, v.Value, after.Metrics[i].Value, after.Metrics[i].Value-v.Value)
	}
	fmt.Fprintf(w, "%-28s %12s %12s %8.2f×\n", "parameters", energy.SI(float64(before.Bytes), "B"), energy.SI(float64(after.Bytes), "B"), float64(before.Bytes)/float64(max(1, after.Bytes)))
	slower := ""
	for _, n := range quantizedBatches {
		k := fmt.Sprint(n)
		if after.MS[k] == 0 {
			continue
		}
		fmt.Fprintf(w, "%-28s %12s %12s %8.2f×\n", fmt.Sprintf("prediction, batch %d", n), energy.SI(before.MS[k]/1e3, "s"), energy.SI(after.MS[k]/1e3, "s"), before.MS[k]/after.MS[k])
		fmt.Fprintf(w, "%-28s %12s %12s %8.2f×\n", "  energy of an example ≈", energy.SI(before.Joules[k], "J"), energy.SI(after.Joules[k], "J"), before.Joules[k]/after.Joules[k])
		if after.MS[k] > before.MS[k] {
			slower += fmt.Sprintf(" batch %d,", n)
		}
	}
	if after.Decode > 0 {
		fmt.Fprintf(w, "%-28s %12s %12s %8.2f×\n", "a token of one text", energy.SI(before.Decode/1e3, "s"), energy.SI(after.Decode/1e3, "s"), before.Decode/after.Decode)
		if after.Decode > before.Decode {
			slower += " a token of one text"
		}
	}
	if slower != "" {
		fmt.Fprintf(w, "The model of integers is SLOWER here at%s.\n", strings.TrimSuffix(slower, ","))
	}
}
