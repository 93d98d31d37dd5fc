// Command joule trains, evaluates and runs models, and says what each costs in arithmetic, bytes, seconds and joules.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/dist/mpi"
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
		fmt.Fprintln(os.Stderr, "joule:", strings.Replace(err.Error(), context.Canceled.Error(), "interrupted", 1))
		return exitInterrupted
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "joule:", err)
		return exitUsage
	}
	fmt.Fprintln(os.Stderr, "joule:", err)
	return exitFailure
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

// writable reports a file that --to names in a folder that is not there, before the work for it is done.
func writable(to string) error {
	if info, err := os.Stat(filepath.Dir(to)); to != "" && (err != nil || !info.IsDir()) {
		return usageError{fmt.Errorf("--to %s: there is no folder %s; create it first", to, filepath.Dir(to))}
	}
	return nil
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
