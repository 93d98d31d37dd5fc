package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/trace"
)

func traceCmd() *cobra.Command {
	var f modelFlags
	var batch, steps int
	var infer bool
	var to string
	c := &cobra.Command{
		Use:   "trace [preset | spec.yaml | RUN | model.safetensors]",
		Short: "Record a timeline of a few steps, by node and by thread",
		Long: "Trace runs some steps on random data and writes what ran when: a track of the steps, one of the nodes (with layer, op, kernel and phase), and one for each thread. " +
			"The file is in the trace event format: open it at https://ui.perfetto.dev or in chrome://tracing.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if batch < 1 || steps < 1 {
				return usageError{fmt.Errorf("--batch %d and --steps %d must be at least 1", batch, steps)}
			}
			m, _, err := f.compiled(c.Context(), first(args, "mnist"))
			if err != nil {
				return err
			}
			x, y := randomBatch(m, batch)
			var rec *trace.Recorder
			defer trace.Stop()
			for i := range steps + 3 {
				if i == 3 { // warm
					rec = trace.Start()
				}
				start := time.Now()
				if infer {
					_, err = m.PredictBatch(x...)
				} else {
					_, err = m.Step(x, y, 1e-4)
				}
				if err != nil {
					return err
				}
				if rec != nil {
					rec.Add(trace.Span{Name: fmt.Sprintf("step %d", i-2), Track: trace.Steps, Start: start, End: time.Now(), Args: map[string]any{"batch": batch}})
				}
			}
			var b bytes.Buffer
			if err := rec.Write(&b, "joule "+m.Net.Name); err != nil {
				return err
			}
			if err := atomicfile.WriteBytes(to, b.Bytes()); err != nil {
				return fmt.Errorf("%s: %w", to, err)
			}
			whole, busy := 0.0, map[int]float64{}
			nodes := 0
			for _, s := range rec.Spans() {
				d := s.End.Sub(s.Start).Seconds()
				switch {
				case s.Track == trace.Steps:
					whole += d
				case s.Track == trace.Nodes:
					nodes++
				default:
					busy[s.Track-trace.Thread] += d
				}
			}
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%d steps of %d nodes, %s a step\n", steps, nodes/steps, energy.SI(whole/float64(steps), "s"))
			for t := range m.Cores() {
				fmt.Fprintf(w, "thread %d was busy %.0f%% of the time\n", t, 100*busy[t]/whole)
			}
			fmt.Fprintf(w, "written to %s; open it at https://ui.perfetto.dev\n", to)
			return nil
		},
	}
	f.add(c)
	c.Flags().IntVar(&batch, "batch", 32, "examples in a step")
	c.Flags().IntVar(&steps, "steps", 3, "steps to record")
	c.Flags().BoolVar(&infer, "infer", false, "record prediction rather than training")
	c.Flags().StringVar(&to, "to", "trace.json", "the file to write")
	return c
}

func reproCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "repro 'LINE'",
		Short: "Run one case of the conformance suite again",
		Long: "Repro takes the line that the conformance suite prints when a case fails, such as 'softmax/wide isa=avx2 threads=3', runs it on this machine and compares with the float64 reference. " +
			"It says which kernel ran, and exits with 1 where the case fails. joule ops lists the ops.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := backendtest.ParseCase(args[0])
			if err != nil {
				return usageError{err}
			}
			if level, err := isa.Parse(k.ISA); err == nil && !isa.Has(level) {
				return fmt.Errorf("%v: this processor has no %s; its best is %s", k, k.ISA, isa.Best())
			}
			kernels, err := k.Run(cpu.Backend{})
			w := c.OutOrStdout()
			fmt.Fprintf(w, "%v on %s\n", k, isa.CPU())
			for _, n := range kernels {
				fmt.Fprintln(w, "  ", n)
			}
			if err != nil {
				return errors.Join(errors.New("the case fails"), err)
			}
			fmt.Fprintln(w, "agrees with the reference")
			return nil
		},
	}
}
