package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/energy/nvml"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/peak"
	"github.com/jouleml/joule/op"
)

func envCmd() *cobra.Command {
	var asJSON, quick bool
	var plugin string
	c := &cobra.Command{
		Use: "env", Short: "Describe this machine: instruction sets, threads, peak, accelerators, energy counters", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			meter, why := energy.Open()
			source := "estimated (" + energy.CPU.Name + ")"
			if meter != nil {
				source = meter.Source().String()
			}
			gpu, noGPU := nvml.Open()
			gpus := ""
			if gpu != nil {
				gpus = gpu.Source().String()
			} else {
				why = append(why, noGPU)
			}
			n := par.DefaultThreads()
			plugins := xla.List(plugin)
			e := map[string]any{
				"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "threads": n,
				"isa": isa.Current().String(), "isa_best": isa.Best().String(), "vnni": isa.VNNI(), "avxvnni": isa.Bytes() == isa.AVXVNNI, "bf16": isa.BF16(), "energy": source, "energy_gpu": gpus, "cpu": isa.CPU(), "xla": plugins,
			}
			if !quick {
				e["flops_1_thread"], e["flops"] = peak.FLOPS(1), peak.FLOPS(n)
				e["bytes_per_second_1_thread"], e["bytes_per_second"] = peak.ReadBandwidth(1), peak.ReadBandwidth(n)
			}
			w := c.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(e)
			}
			fmt.Fprintf(w, "joule %v, %v, %v\n", e["version"], e["go"], e["platform"])
			fmt.Fprintf(w, "processor %v\n", e["cpu"])
			fmt.Fprintf(w, "instruction set %v (the best here is %v), VNNI %v, AVX-VNNI %v, BF16 %v\n", e["isa"], e["isa_best"], e["vnni"], e["avxvnni"], e["bf16"])
			fmt.Fprintf(w, "threads %d\n", n)
			if !quick {
				fmt.Fprintf(w, "peak, measured now: %s on 1 thread, %s on %d\n", energy.SI(e["flops_1_thread"].(float64), "FLOP/s"), energy.SI(e["flops"].(float64), "FLOP/s"), n)
				fmt.Fprintf(w, "memory reads: %s on 1 thread, %s on %d\n", energy.SI(e["bytes_per_second_1_thread"].(float64), "B/s"), energy.SI(e["bytes_per_second"].(float64), "B/s"), n)
			}
			for _, p := range plugins {
				fmt.Fprint(w, p)
			}
			if len(plugins) == 0 {
				fmt.Fprintln(w, "xla: no PJRT plugin found (docs/xla.md says how to get one)")
			}
			fmt.Fprintln(w, "energy", source)
			if gpus != "" {
				fmt.Fprintln(w, "energy of GPUs", gpus, "(--meter rapl+nvml reads it)")
			}
			for _, r := range why {
				fmt.Fprintln(w, " ", r)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&quick, "quick", false, "measure no peak")
	c.Flags().StringVar(&plugin, "plugin", "", "look at this PJRT plugin alone (default: "+xla.PluginEnv+", or all in the usual Python folders)")
	return c
}

func opsCmd() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use: "ops [NAME]", Short: "List the ops: what each does, whether it has a gradient, and what runs it", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			type row struct {
				op.Description
				CPU string
			}
			var rows []row
			for _, o := range op.All() {
				if len(args) == 0 || o.Name == args[0] {
					rows = append(rows, row{op.Describe(o), cpu.Support(o)})
				}
			}
			if len(rows) == 0 {
				var names []string
				for _, o := range op.All() {
					names = append(names, o.Name)
				}
				return usageError{fmt.Errorf("there is no op %q; known: %s", args[0], strings.Join(names, ", "))}
			}
			w := c.OutOrStdout()
			if asJSON {
				return json.NewEncoder(w).Encode(rows)
			}
			for _, r := range rows {
				if len(args) > 0 {
					fmt.Fprintf(w, "%s (%s): %s\n  definition  %s\n  gradient    %s\n  cpu         %s\n  stablehlo   %s (%s)\n  onnx        %s\n", r.Name, r.Kind, r.Doc, r.Definition, r.Gradient, r.CPU, r.StableHLO, r.XLA, r.ONNX)
					continue
				}
				fmt.Fprintf(w, "%-22s %-12s gradient: %-24.24s cpu: %s\n", r.Name, r.Kind, r.Gradient, r.CPU)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}
