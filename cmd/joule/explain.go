package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/peak"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func explainCmd() *cobra.Command {
	var f modelFlags
	var batch, steps int
	var infer bool
	var lengths []int
	c := &cobra.Command{
		Use:   "explain [preset | spec.yaml | RUN | model.safetensors]",
		Short: "Say where the time and the energy of a step go, and what bounds each part",
		Long: "Explain runs some steps on random data and prints, for each node that runs, its arithmetic, bytes, arithmetic intensity, the least time that this\n" +
			"machine could take (the roofline, from a measured peak), the time it took, the share of the bound that it reached, and its energy.\n\n" +
			"With --length it shows a sequence model at other lengths, its parts side by side: where the time of a position goes, and where the bottleneck moves.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if batch < 1 || steps < 1 {
				return usageError{fmt.Errorf("--batch %d and --steps %d must be at least 1", batch, steps)}
			}
			if len(lengths) > 0 {
				return f.explainLengths(c, first(args, "char-gpt"), lengths, batch, steps, infer)
			}
			m, _, err := f.compiled(c.Context(), first(args, "mnist"))
			if err != nil {
				return err
			}
			if !infer && !slices.ContainsFunc(m.Params(), func(p nn.Param) bool { return p.Trainable }) {
				return usageError{errors.New("the model has no parameter that is trained, so there is no training step to explain: --infer explains its predictions")}
			}
			rows, err := explain(m, batch, steps, infer)
			if err != nil {
				return err
			}
			mach := energy.Machine{FLOPS: peak.FLOPS(m.Cores()), Bandwidth: peak.ReadBandwidth(m.Cores())}
			asked, left := m.Moved(batch, infer)
			return printExplain(c, f.json, rows, mach, m.Cores(), asked, left)
		},
	}
	f.add(c)
	c.Flags().IntVar(&batch, "batch", 32, "examples in a step")
	c.Flags().IntVar(&steps, "steps", 50, "steps to measure")
	c.Flags().IntSliceVar(&lengths, "length", nil, "of a sequence model (default char-gpt): positions of an example, one or several such as 64,256,1024")
	c.Flags().BoolVar(&infer, "infer", false, "explain prediction rather than training")
	return c
}

// randomBatch is a batch of random examples as the model takes them.
func randomBatch(m *train.Model, batch int) (x, y []*tensor.Tensor) {
	x, y = m.Spec.Tensors(batch)
	rng := rand.New(rand.NewPCG(1, 1))
	fill := func(ts []*tensor.Tensor, limit int) {
		for _, t := range ts {
			for i := range t.Len() {
				if t.DType().IsFloat() {
					t.Set(i, rng.Float64())
				} else {
					t.Set(i, float64(rng.IntN(max(1, limit))))
				}
			}
		}
	}
	fill(x, m.Spec.Classes)
	fill(y, m.Spec.Classes)
	return x, y
}

// explain measures the nodes of a step on random data.
func explain(m *train.Model, batch, steps int, infer bool) ([]train.NodeCost, error) {
	x, y := randomBatch(m, batch)
	for i := range steps + 3 {
		if i == 3 { // warm
			if _, err := m.StartAccount(nil); err != nil {
				return nil, err
			}
		}
		var err error
		if infer {
			_, err = m.PredictBatch(x...)
		} else {
			_, err = m.Step(x, y, 1e-4)
		}
		if err != nil {
			return nil, err
		}
	}
	return m.NodeCosts(batch, infer), nil
}

func printExplain(c *cobra.Command, asJSON bool, rows []train.NodeCost, mach energy.Machine, cores int, asked, left int64) error {
	w := c.OutOrStdout()
	if asJSON {
		return json.NewEncoder(w).Encode(map[string]any{"machine": mach, "nodes": rows, "transposes": map[string]int64{"bytes_asked": asked, "bytes_left": left}})
	}
	fmt.Fprintf(w, "this machine, %d threads: %s, %s (measured now)\n\n", cores, energy.SI(mach.FLOPS, "FLOP/s"), energy.SI(mach.Bandwidth, "B/s"))
	fmt.Fprintf(w, "%-18s %-9s %-22s %11s %10s %8s %-8s %9s %9s %6s %9s  %s\n", "layer", "phase", "op", "arithmetic", "bytes", "FLOP/B", "bound by", "at best", "took", "share", "energy ≈", "kernel")
	var total energy.Cost
	var took, best, joules float64
	for _, r := range rows {
		bound, by := mach.Bound(r.Cost)
		layer := r.Layer
		if layer == "" {
			layer = "-"
		}
		share := "-"
		if r.Cost.Executed+r.Cost.Bytes() > 0 && r.Seconds > 0 {
			share = fmt.Sprintf("%.0f%%", 100*bound/r.Seconds)
		}
		fmt.Fprintf(w, "%-18s %-9s %-22s %11s %10s %8.1f %-8s %9s %9s %6s %9s  %s\n", layer, r.Phase, r.Op, energy.SI(float64(r.Cost.Executed), "FLOP"), energy.SI(float64(r.Cost.Bytes()), "B"),
			r.Cost.Intensity(), by, energy.SI(bound, "s"), energy.SI(r.Seconds, "s"), share, energy.SI(r.Joules.Value, "J"), r.Kernel)
		total = total.Add(r.Cost)
		took += r.Seconds
		best += bound
		joules += r.Joules.Value
	}
	fmt.Fprintf(w, "\ntotal %s, %s, took %s (the bounds of the parts add up to %s), ≈%s estimated\n", energy.SI(float64(total.Executed), "FLOP"), energy.SI(float64(total.Bytes()), "B"), energy.SI(took, "s"), energy.SI(best, "s"), energy.SI(joules, "J"))
	if asked > 0 {
		fmt.Fprintf(w, "Of the %s that transposes would move in a step as the program is written, %s are left (pass layout).\n", energy.SI(float64(asked), "B"), energy.SI(float64(left), "B"))
	}
	note := "Arithmetic is what the kernels run, by Winograd's algorithm or on sparse gradients less than the formula says. A share above 100% means that the operands came from cache, not memory."
	if slices.ContainsFunc(rows, func(r train.NodeCost) bool { return r.Cost.Int8 > 0 }) {
		note = strings.TrimSuffix(note, ".") + ", or that the arithmetic is on bytes: the peak is that of f32."
	}
	fmt.Fprintln(w, note)
	return nil
}
