package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/bench"
)

func benchCmd() *cobra.Command {
	var o bench.Options
	c := &cobra.Command{
		Use:   "bench [WORK…]",
		Short: "Measure this program, and with --peers others beside it, on the same work in one run",
		Long: "Bench prints a Markdown table: for each work the best and the median time, the share of the machine's measured peak, and with --peers the ratio to the best peer.\n" +
			"Peers are other frameworks' programs in bench/peers (see its README); both sides run in turn, so that a drift of the machine meets both.",
		RunE: func(c *cobra.Command, args []string) error {
			o.Works = args
			if o.Rounds < 1 {
				return usageError{fmt.Errorf("--rounds %d must be at least 1", o.Rounds)}
			}
			return bench.Run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), o)
		},
	}
	c.Flags().BoolVar(&o.Peers, "peers", false, "run the peers too")
	c.Flags().StringVar(&o.Dir, "peers-dir", "bench/peers", "where the peers' programs are")
	c.Flags().StringVar(&o.Python, "python", "", "the Python that has them installed (default: .venv/bin/python in the peers' folder)")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "run these peers alone, such as torch-eager,jax")
	c.Flags().IntVar(&o.Rounds, "rounds", 5, "how often the sides take turns")
	c.Flags().IntVar(&o.Threads, "threads", 2, "threads of each side")
	c.Flags().BoolVar(&o.JSON, "json", false, "print JSON")
	return c
}
