package main

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/peak"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/train"
)

// partCost is what a part of a sequence model costs in a step.
type partCost struct {
	Part    string      `json:"part"`
	Seconds float64     `json:"seconds"`
	Cost    energy.Cost `json:"cost"`
	Joules  float64     `json:"joules"`
	Bound   string      `json:"bound_by"` // compute or memory: what most of its time at best goes to
}

// lengthCost is a step at one length.
type lengthCost struct {
	Length  int        `json:"length"`
	Tokens  int        `json:"tokens"` // of the step
	Seconds float64    `json:"seconds"`
	FLOPs   int64      `json:"flops"`
	Joules  float64    `json:"joules"`
	Parts   []partCost `json:"parts"`
}

// explainLengths measures a model's step at several lengths of its sequences.
func (f *modelFlags) explainLengths(c *cobra.Command, ref string, lengths []int, batch, steps int, infer bool) error {
	for _, n := range lengths {
		if n < 1 {
			return usageError{fmt.Errorf("--length %d must be at least 1", n)}
		}
	}
	s, err := spec.Open(ref)
	if err != nil {
		return fmt.Errorf("--length takes a preset or a specification: %w", err)
	}
	set, err := openData(s, f.out)
	if err != nil {
		return err
	}
	of := set.Spec()
	probe, err := s.Compile(of, 1, train.Threads(f.threads))
	if err != nil {
		return err
	}
	old := probe.Positions()
	if old == 0 {
		return usageError{fmt.Errorf("--length is for models that read sequences; %s reads %v%v", ref, of.Inputs[0].DType, of.Inputs[0].Shape)}
	}
	var out []lengthCost
	var mach energy.Machine
	for _, n := range lengths {
		s, err := spec.Open(ref)
		if err != nil {
			return err
		}
		s.Positions = n
		m, err := s.Compile(resized(of, old, n), 1, train.Threads(f.threads))
		if err != nil {
			return fmt.Errorf("at length %d: %w", n, err)
		}
		rows, err := explain(m, batch, steps, infer)
		if err != nil {
			return err
		}
		if mach.FLOPS == 0 {
			mach = energy.Machine{FLOPS: peak.FLOPS(m.Cores()), Bandwidth: peak.ReadBandwidth(m.Cores())}
		}
		out = append(out, lengthsOf(m, n, batch, rows, mach))
	}
	if f.json {
		return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"machine": mach, "batch": batch, "lengths": out})
	}
	printLengths(c, out, batch)
	return nil
}

// resized is a data spec whose sequences of old positions have n.
func resized(of data.Spec, old, n int) data.Spec {
	change := func(fields []data.Field) []data.Field {
		out := slices.Clone(fields)
		for i, f := range out {
			if len(f.Shape) > 0 && f.Shape[0] == old {
				out[i].Shape = append(shape.Of(n), f.Shape[1:]...)
			}
		}
		return out
	}
	of.Inputs, of.Targets = change(of.Inputs), change(of.Targets)
	return of
}

// lengthsOf adds the nodes of a step up by parts.
func lengthsOf(m *train.Model, length, batch int, rows []train.NodeCost, mach energy.Machine) lengthCost {
	l := lengthCost{Length: length, Tokens: length * batch}
	parts := append(nn.Parts(), train.PartUpdate, train.PartOutside)
	best := make([]map[string]float64, len(parts))
	all := make([]partCost, len(parts))
	for _, r := range rows {
		i := slices.Index(parts, m.PartOf(r.Key))
		p := &all[i]
		p.Seconds += r.Seconds
		p.Cost = p.Cost.Add(r.Cost)
		p.Joules += r.Joules.Value
		if best[i] == nil {
			best[i] = map[string]float64{}
		}
		sec, by := mach.Bound(r.Cost)
		best[i][by] += sec
		l.Seconds += r.Seconds
		l.FLOPs += r.Cost.FLOPs
		l.Joules += r.Joules.Value
	}
	for i, p := range all {
		if best[i] == nil {
			continue
		}
		p.Part, p.Bound = parts[i], "memory"
		if best[i]["compute"] > best[i]["memory"] {
			p.Bound = "compute"
		}
		l.Parts = append(l.Parts, p)
	}
	return l
}

func printLengths(c *cobra.Command, out []lengthCost, batch int) {
	w := c.OutOrStdout()
	var names []string
	for _, n := range append(nn.Parts(), train.PartUpdate, train.PartOutside) {
		if slices.ContainsFunc(out, func(l lengthCost) bool {
			return slices.ContainsFunc(l.Parts, func(p partCost) bool { return p.Part == n })
		}) {
			names = append(names, n)
		}
	}
	line := func(head string, cell func(l lengthCost) string) {
		fmt.Fprintf(w, "%-16s", head)
		for _, l := range out {
			fmt.Fprintf(w, " %14s", cell(l))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintf(w, "batch %d; shares of the time of a step\n\n", batch)
	line("length", func(l lengthCost) string { return fmt.Sprint(l.Length) })
	for _, n := range names {
		line(n, func(l lengthCost) string {
			for _, p := range l.Parts {
				if p.Part == n {
					return fmt.Sprintf("%.1f%% %s", 100*p.Seconds/l.Seconds, map[string]string{"compute": "C", "memory": "M"}[p.Bound])
				}
			}
			return "-"
		})
	}
	fmt.Fprintln(w)
	line("bottleneck", func(l lengthCost) string {
		return slices.MaxFunc(l.Parts, func(a, b partCost) int { return int(1e9 * (a.Seconds - b.Seconds)) }).Part
	})
	line("step", func(l lengthCost) string { return energy.SI(l.Seconds, "s") })
	line("time/token", func(l lengthCost) string { return energy.SI(l.Seconds/float64(l.Tokens), "s") })
	line("FLOP/token", func(l lengthCost) string { return energy.SI(float64(l.FLOPs)/float64(l.Tokens), "FLOP") })
	line("energy/token ≈", func(l lengthCost) string { return energy.SI(l.Joules/float64(l.Tokens), "J") })
	fmt.Fprintln(w, "\nC: most of the part's time at best is arithmetic; M: memory. Energy is estimated.")
}
