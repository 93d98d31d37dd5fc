package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

func quantizeCmd() *cobra.Command {
	var f modelFlags
	var o quant.Options
	var on, to string
	c := &cobra.Command{
		Use:   "quantize [RUN | model.safetensors]",
		Short: "Make a model of 8-bit integers out of a trained one",
		Long: "Quantize measures the ranges of activations on training examples, replaces dense layers and convolutions by layers of 8-bit integers, writes the new model beside the old one (or to --to), and prints both side by side: " +
			"metrics on the test data, size, time and energy of a prediction. It says so where the new model is worse.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			ref := first(args, "last")
			m, of, err := f.load(ref)
			if err != nil {
				return err
			}
			path, err := f.file(ref)
			if err != nil {
				return err
			}
			if on == "" {
				on = of
			}
			if on == "" {
				return usageError{errors.New("--data says which data set to measure on")}
			}
			if to == "" {
				to = strings.TrimSuffix(path, filepath.Ext(path)) + ".int8.safetensors"
			}
			set, err := catalog.Open(on)
			if err != nil {
				return err
			}
			q, r, err := quant.Static(c.Context(), m, set.Train, o)
			if err != nil {
				return err
			}
			if err := q.Save(to); err != nil {
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
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"file": to, "report": r, "before": before, "after": after})
			}
			printQuantized(c, r, before, after)
			fmt.Fprintf(c.OutOrStdout(), "\nwritten to %s\n", to)
			return nil
		},
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&on, "data", "", "the data set (default: the one that the run was trained on)")
	fs.StringVar(&to, "to", "", "the file to write (default: the model's name with .int8)")
	fs.IntVar(&o.Examples, "examples", 512, "training examples to measure ranges on")
	fs.Float64Var(&o.Clip, "clip", 0, "share of activations that may lie outside of the range on each side, such as 0.0001")
	fs.StringArrayVar(&o.Keep, "keep", nil, "leave layers whose names match as they are (may be given several times)")
	return c
}

// side is one of the two models.
type side struct {
	Metrics []train.Log        `json:"metrics"`
	Bytes   int                `json:"bytes"`
	MS      map[string]float64 `json:"ms"`     // median of a prediction, by batch
	Joules  map[string]float64 `json:"joules"` // estimated for an example, by batch
}

var quantizedBatches = []int{1, 32, 128}

// sideOf evaluates a model and measures its predictions.
func sideOf(c *cobra.Command, m *train.Model, set *data.Set) (side, error) {
	s := side{MS: map[string]float64{}, Joules: map[string]float64{}}
	var err error
	if s.Metrics, err = m.Evaluate(c.Context(), set.Test, 128); err != nil {
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
		var ms []float64
		var a *train.Account
		start := time.Now()
		for i := 0; i < 20 || i < 2000 && time.Since(start) < time.Second; i++ {
			if i == 5 { // warm
				if a, err = m.StartAccount(nil); err != nil {
					return s, err
				}
			}
			t := time.Now()
			if _, err := m.PredictBatch(x...); err != nil {
				return s, err
			}
			if i >= 5 {
				ms = append(ms, time.Since(t).Seconds()*1e3)
			}
			if err := c.Context().Err(); err != nil {
				return s, err
			}
		}
		l, err := a.Ledger()
		if err != nil {
			return s, err
		}
		slices.Sort(ms)
		key := fmt.Sprint(n)
		s.MS[key] = ms[len(ms)/2]
		s.Joules[key] = l.Joules.Value / float64(n*len(ms))
	}
	return s, nil
}

func printQuantized(c *cobra.Command, r *quant.Report, before, after side) {
	w := c.OutOrStdout()
	fmt.Fprintf(w, "ranges measured on %d examples\n\n%-22s %-7s %24s %12s %10s %10s\n", r.Examples, "layer", "bytes", "input from … to", "weights/error", "before", "after")
	for _, l := range r.Layers {
		if !l.Bytes {
			fmt.Fprintf(w, "%-22s %-7s %24s %12s %10s %10s  %s\n", l.Name, "-", "", "", energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"), l.Why)
			continue
		}
		fmt.Fprintf(w, "%-22s %-7s %24s %9.0f dB %10s %10s\n", l.Name, "yes", fmt.Sprintf("%.3g … %.3g", l.Lo, l.Hi), l.NoiseRatio, energy.SI(float64(l.Before), "B"), energy.SI(float64(l.After), "B"))
	}
	fmt.Fprintf(w, "\n%-28s %12s %12s %9s\n", "", "f32", "int8", "ratio")
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
			slower += fmt.Sprintf(" batch %d", n)
		}
	}
	if slower != "" {
		fmt.Fprintf(w, "The model of integers is SLOWER here at%s.\n", slower)
	}
}
