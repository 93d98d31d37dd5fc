package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/catalog"
	"github.com/jouleml/joule/data/forecast"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/spec"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

func forecastCmd() *cobra.Command {
	var folds, threads int
	var seed uint64
	var asJSON bool
	c := &cobra.Command{
		Use:   "forecast [preset | spec.yaml]",
		Short: "Judge a forecast honestly: train anew before each stretch of the future, and compare with simple baselines",
		Long: "Forecast cuts the test part of a time series into stretches. Before each, a new model is trained on everything that lies before it; normalisation too is fitted to that alone. All forecasts are\n" +
			"compared with the last value and with least squares on the last rows, and it says plainly whether the model is better.",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: []string{"stocks", "stocks-gru"},
		RunE: func(c *cobra.Command, args []string) error {
			if folds < 1 || threads < 0 {
				return usageError{errors.New("--folds must be at least 1 and --threads not negative")}
			}
			s, err := spec.Open(first(args, "stocks"))
			if err != nil {
				return err
			}
			series, err := catalog.Series(s.Data)
			if err != nil {
				return err
			}
			if series == nil {
				return fmt.Errorf("forecast takes time series; %s is another kind of data", s.Data)
			}
			parts, err := series.Folds(folds)
			if err != nil {
				return err
			}
			var ledger *energy.Ledger
			r, err := forecast.Walk(parts, func(i int, f forecast.Fold) (*tensor.Tensor, error) {
				meter, _ := energy.Open()
				m, err := s.Compile(f.Train.Spec(), updates(s, f.Train), train.Threads(threads), train.Seed(seed))
				if err != nil {
					return nil, err
				}
				a, err := m.StartAccount(meter)
				if err != nil {
					return nil, err
				}
				if _, err := m.Fit(c.Context(), f.Train, train.Epochs(s.Fit.Epochs), train.BatchSize(s.Fit.BatchSize), train.Augment(s.Fit.Augment...), train.Mixup(s.Fit.Mixup)); err != nil {
					return nil, err
				}
				p, err := m.Predict(c.Context(), f.Test, 128)
				if err != nil {
					return nil, err
				}
				l, err := a.Ledger()
				if err != nil {
					return nil, err
				}
				if ledger == nil {
					ledger = l
				} else {
					ledger.Merge(l)
				}
				if !asJSON {
					from, to := f.Test.Span()
					fmt.Fprintf(c.ErrOrStderr(), "fold %d of %d: trained on %d windows, forecast %s to %s\n", i+1, len(parts), f.Train.Len(), from, to)
				}
				return p, nil
			})
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{
					"report": r, "verdict": r.Verdict(), "seconds": ledger.Seconds, "joules": ledger.Joules.Value, "energy_source": ledger.Joules.Source.String(), "flops": ledger.Cost.FLOPs,
				})
			}
			fmt.Fprint(c.OutOrStdout(), r)
			fmt.Fprintf(c.OutOrStdout(), "%s, %s of arithmetic, %v\n", energy.SI(ledger.Seconds, "s"), energy.SI(float64(ledger.Cost.FLOPs), "FLOP"), ledger.Joules)
			return nil
		},
	}
	c.Flags().IntVar(&folds, "folds", 5, "stretches of the test part, each with a model of its own")
	c.Flags().Uint64Var(&seed, "seed", 0, "the number that everything random follows from")
	c.Flags().IntVar(&threads, "threads", 0, "threads to use (default: one for each CPU)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// updates is the number of optimizer steps of a training.
func updates(s *spec.Spec, ds data.Dataset) int64 {
	b := s.Fit.BatchSize
	return int64(s.Fit.Epochs) * int64((ds.Len()+b-1)/b) / int64(s.Fit.Accumulate)
}

// reportForecast compares the forecasts of the test part with the baselines, if the data are time series.
func (j *job) reportForecast(ctx context.Context, w io.Writer) error {
	te, ok := j.set.Test.(*forecast.Windows)
	tr, ok2 := j.set.Train.(*forecast.Windows)
	if !ok || !ok2 {
		return nil
	}
	r, err := forecast.Walk([]forecast.Fold{{Train: tr, Test: te}}, func(int, forecast.Fold) (*tensor.Tensor, error) {
		return j.model.Predict(ctx, te, 128)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s", r)
	return nil
}
