package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/bench"
)

func benchCmd() *cobra.Command {
	var o bench.Options
	var from []string
	c := &cobra.Command{
		Use:   "bench [WORK…]",
		Short: "Measure this program, and with --peers others beside it, on the same work in one run",
		Long: "Bench prints Markdown tables: for each work the best and the median time, the share of the machine's measured peak, and with --peers the ratio to the best peer.\n" +
			"Peers are other frameworks' programs in bench/peers, which bench/peers/install.sh installs; all sides run in turn, so that a drift of the machine meets all.\n" +
			"A WORK is a name or the beginning of one; an unknown one lists them all. With JOULE_DEBUG=isa=avx2 on a processor with AVX-512 the peers too are held to AVX2, as far as they can be.",
		RunE: func(c *cobra.Command, args []string) error {
			if len(from) > 0 {
				if len(args) > 0 || o.Peers || o.JSON || o.Out != "" {
					return usageError{errors.New("--from prints reports that were saved: it goes with no work and none of --peers, --json, --out")}
				}
				return bench.Print(c.OutOrStdout(), from)
			}
			o.Works = args
			if o.Rounds < 1 {
				return usageError{fmt.Errorf("--rounds %d must be at least 1", o.Rounds)}
			}
			if o.Threads < 1 {
				return usageError{fmt.Errorf("--threads %d must be at least 1", o.Threads)}
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			o.Self = []string{self}
			return bench.Run(c.Context(), c.OutOrStdout(), c.ErrOrStderr(), o)
		},
	}
	c.Flags().BoolVar(&o.Peers, "peers", false, "run the peers too")
	c.Flags().StringVar(&o.Dir, "peers-dir", "bench/peers", "where the peers' programs are")
	c.Flags().StringVar(&o.Python, "python", "", "the Python that has them installed (default: .venv/bin/python in the peers' folder)")
	c.Flags().StringVar(&o.Launcher, "launcher", "mpirun", "what starts the ranks of the works on several")
	c.Flags().StringSliceVar(&o.Only, "only", nil, "run these peers alone, such as torch-eager,jax")
	c.Flags().IntVar(&o.Rounds, "rounds", 5, "how often the sides take turns")
	c.Flags().IntVar(&o.Threads, "threads", 2, "threads of each side")
	c.Flags().BoolVar(&o.Uncapped, "uncapped", false, "let the peers use every instruction set also where Joule is held to AVX2")
	c.Flags().BoolVar(&o.JSON, "json", false, "print JSON")
	c.Flags().StringVar(&o.Out, "out", "", "also write the report to this file, as JSON")
	c.Flags().StringArrayVar(&from, "from", nil, "measure nothing: print the tables of a report that --out wrote (may be given several times)")
	c.AddCommand(benchServeCmd())
	return c
}

// benchServeCmd is what joule bench starts where a work needs a process of its own.
func benchServeCmd() *cobra.Command {
	return &cobra.Command{
		Use: "serve THREADS", Short: "Run works on request, for joule bench itself", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 {
				return usageError{fmt.Errorf("%q is no number of threads", args[0])}
			}
			return bench.Serve(c.InOrStdin(), c.OutOrStdout(), n)
		},
	}
}
