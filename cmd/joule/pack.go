package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/compress/pack"
	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/train"
)

func packCmd() *cobra.Command {
	var f modelFlags
	var o pack.Options
	var on, to string
	c := &cobra.Command{
		Use:   "pack [RUN | model.safetensors]",
		Short: "Write a trained model in few bytes",
		Long: "Pack writes a model file that every command opens in a fraction of the bytes, by how often each weight occurs. Without more flags it changes no weight: that helps models that are pruned, share values or are of bytes. " +
			"--sparsity prunes weights while the model learns on, --values lets those of a layer share a few values, which learn on too, and --int8 makes layers of bytes of them (Deep Compression, arXiv:1510.00149). With --pattern zeros stand where --sparse can leave them out of products.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			for _, v := range []struct {
				flag, with string
				ok         bool
			}{{"rows", "--sparse", o.Sparse}, {"pattern", "--sparsity", o.Sparsity > 0}, {"epochs", "--sparsity or --values", o.Sparsity > 0 || o.Values > 0}, {"batch", "--sparsity or --values", o.Sparsity > 0 || o.Values > 0}} {
				if c.Flags().Changed(v.flag) && !v.ok {
					return usageError{fmt.Errorf("--%s goes with %s", v.flag, v.with)}
				}
			}
			if err := errors.Join(writable(to), o.Check()); err != nil {
				return usageError{err}
			}
			if o.Epochs < 1 || o.Batch < 1 {
				return usageError{fmt.Errorf("--epochs %d and --batch %d must be at least 1", o.Epochs, o.Batch)}
			}
			s, err := f.subject(first(args, "last"), on)
			if err != nil {
				return err
			}
			m, set := s.model, s.set
			to := cmp.Or(to, s.beside("packed"))
			learns := o.Sparsity > 0 || o.Values > 0 || o.Int8
			changes := learns || o.Sparse
			if set == nil && learns {
				return usageError{errors.New("--data says which data set to learn from and to measure on")}
			}
			q := m
			var examples data.Dataset
			var before, after []train.Log
			l := energy.NewLedger(energy.CPU, m.Cores())
			if set != nil {
				examples = set.Train
				if before, err = m.Evaluate(c.Context(), set.Test, 128); err != nil {
					return err
				}
			}
			o.Augment, o.Mixup = s.changes()
			release := func() {}
			if learns { // no epochs for a file that cannot be written
				room, _, err := m.PackedSize()
				if err != nil {
					return err
				}
				if release, err = atomicfile.Reserve(to, room); err != nil {
					return err
				}
				defer release()
			}
			if changes {
				if q, err = pack.Pack(c.Context(), m, examples, o, l); err != nil {
					return err
				}
			}
			if set != nil {
				if after, err = q.Evaluate(c.Context(), set.Test, 128); err != nil {
					return err
				}
			}
			release()
			if err := q.SavePacked(to); err != nil {
				return err
			}
			info, err := os.Stat(to)
			if err != nil {
				return err
			}
			plain, err := m.PlainSize()
			if err != nil {
				return err
			}
			sparsity, by, err := prune.Sparsity(q)
			if err != nil {
				return err
			}
			if f.json {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"file": to, "bytes": info.Size(), "bytes_before": plain, "sparsity": sparsity, "sparsity_by_parameter": by, "test_before": before, "test_after": after, "joules": l.Joules.Value})
			}
			w := c.OutOrStdout()
			for i, v := range after {
				fmt.Fprintf(w, "%-24s %12.4f %12.4f %+9.4f\n", "test "+v.Name, before[i].Value, v.Value, v.Value-before[i].Value)
			}
			fmt.Fprintf(w, "%-24s %12s %12s %8.2f×\n", "model on disk", energy.SI(float64(plain), "B"), energy.SI(float64(info.Size()), "B"), float64(plain)/float64(info.Size()))
			if sparsity > 0 {
				fmt.Fprintf(w, "%-24s %25.1f%%\n", "weights that are zero", 100*sparsity)
			}
			for _, line := range sparseLines(q) {
				fmt.Fprintln(w, line)
			}
			if l.Joules.Value > 0 {
				fmt.Fprintf(w, "learning on%s cost ≈%s\n", s.changed(), energy.SI(l.Joules.Value, "J"))
			}
			if info.Size() >= plain {
				fmt.Fprintln(w, "It is NO SMALLER than the model without packing.")
			}
			fmt.Fprintf(w, "written to %s\n", to)
			return nil
		},
	}
	f.add(c)
	fs := c.Flags()
	fs.StringVar(&on, "data", "", "the data set (default: the one that the run was trained on)")
	fs.StringVar(&to, "to", "", "the file to write (default: the model's name with .packed)")
	fs.Float64Var(&o.Sparsity, "sparsity", 0, "share of the weights that become zero, the smallest of all layers")
	fs.IntVar(&o.Values, "values", 0, "values that the other weights of a layer share, such as 15")
	fs.BoolVar(&o.Int8, "int8", false, "make layers of bytes")
	fs.StringVar((*string)(&o.Pattern), "pattern", "", "where zeros may stand: 2:4, another n:m, or block (16 outputs of an input together); of products of matrices alone")
	fs.BoolVar(&o.Sparse, "sparse", false, "keep matrices whose zeros follow a pattern without them, where products are faster by that; an error that says why where none is")
	fs.IntVar(&o.Rows, "rows", 1, "with --sparse: rows of these products (the batch, times the positions of a sequence)")
	fs.IntVar(&o.Epochs, "epochs", 1, "epochs of learning after pruning, and again after sharing")
	fs.IntVar(&o.Batch, "batch", 32, "examples in a step")
	return c
}

// sparseLines name the matrices that are sparse products.
func sparseLines(m *train.Model) []string {
	formats, err := m.Formats()
	if err != nil {
		return nil
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(formats)) {
		if f := formats[name]; f.Sparse != "" {
			out = append(out, fmt.Sprintf("%-24s is a sparse product, pattern %s", name, f.Sparse))
		}
	}
	return out
}
