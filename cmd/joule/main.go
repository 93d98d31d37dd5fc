// Command joule trains, evaluates and runs models, and says what each costs in arithmetic, bytes, seconds and joules.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/dist/mpi"
	"github.com/jouleml/joule/graph"
	jdebug "github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/train"
)

// Exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func (u usageError) Unwrap() error { return u.error }

func main() { mpi.Exit(run()) }

func run() int {
	// The first Ctrl-C ends the work in order; the second kills the process, as is usual.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	err := jdebug.Err()
	if err == nil {
		err = root().ExecuteContext(ctx)
	}
	var usage usageError
	var said silent
	switch {
	case err == nil:
		return 0
	case errors.As(err, &said) && (errors.Is(err, train.ErrInterrupted) || errors.Is(err, context.Canceled)):
		return exitInterrupted
	case errors.As(err, &said):
		return exitFailure
	case errors.Is(err, train.ErrInterrupted), errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "joule:", saysOf(err))
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "joule:", saysOf(err))
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "joule:", saysOf(err))
	return exitFailure
}

// saysOf is what an error says, without lines of this program, which are the user's only in programs of their own.
func saysOf(err error) string {
	s := err.Error()
	if g := (*graph.Error)(nil); errors.As(err, &g) && g.Site != "" {
		s = strings.Replace(s, g.Site+": ", "", 1)
	}
	return s
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "joule",
		Short:         "Deep learning that counts its compute and its energy",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%s (see: %s --help)", plain(err.Error()), c.CommandPath())}
	})
	c.AddCommand(trainCmd(), evalCmd(), predictCmd(), embedCmd(), generateCmd(), forecastCmd(), quantizeCmd(), packCmd(), compressCmd(), summaryCmd(), explainCmd(), traceCmd(), reproCmd(), planCmd(), runsCmd(), reportCmd(), dataCmd(), benchCmd(), opsCmd(), envCmd(), docsCmd())
	for _, s := range c.Commands() {
		s.Args = usageArgs(s.Args)
	}
	return c
}

// plain says what a flag wants in place of what a function of Go found.
func plain(text string) string {
	head, rest, ok := strings.Cut(text, ": strconv.Parse")
	if !ok {
		return text
	}
	kind, _, _ := strings.Cut(rest, ":")
	want, known := map[string]string{"Int": "a whole number", "Uint": "a whole number, not negative", "Float": "a number", "Bool": "true or false"}[kind]
	if !known {
		return text
	}
	if strings.HasSuffix(rest, "out of range") {
		want += " that is not so great"
	}
	return head + ": want " + want
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if check == nil {
			return nil
		}
		if err := check(c, args); err != nil {
			return usageError{fmt.Errorf("%w (see: %s --help)", err, c.CommandPath())}
		}
		return nil
	}
}

func version() string {
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "unknown"
}
