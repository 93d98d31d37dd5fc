package main

import (
	_ "embed" // the text of a page
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/jouleml/joule/backend/cpu"
	jdebug "github.com/jouleml/joule/internal/debug"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

//go:generate sh -c "go run . docs cli >cli.tmp && mv cli.tmp ../../docs/cli.md"
//go:generate sh -c "go run . docs ops >ops.tmp && mv ops.tmp ../../docs/ops.md"
//go:generate sh -c "go run . docs layers >layers.tmp && mv layers.tmp ../../docs/layers.md"
//go:generate sh -c "go run . docs xla >xla.tmp && mv xla.tmp ../../docs/xla.md"
//go:generate sh -c "go run . docs debugging >debugging.tmp && mv debugging.tmp ../../docs/debugging.md"

// docsCmd prints the parts of the documentation that the program knows itself.
func docsCmd() *cobra.Command {
	pages := map[string]func(w io.Writer, root *cobra.Command){"cli": cliPage, "ops": opsPage, "layers": layersPage, "xla": xlaPage, "debugging": debugPage}
	return &cobra.Command{
		Use: "docs cli|ops|layers|xla|debugging", Hidden: true, Args: cobra.ExactArgs(1), Short: "Print a page of documentation",
		RunE: func(c *cobra.Command, args []string) error {
			page := pages[args[0]]
			if page == nil {
				return usageError{fmt.Errorf("there is no page %q: cli, ops, layers, xla or debugging", args[0])}
			}
			fmt.Fprintln(c.OutOrStdout(), "<!-- Made by go generate ./cmd/joule. -->")
			page(c.OutOrStdout(), c.Root())
			return nil
		},
	}
}

func cliPage(w io.Writer, root *cobra.Command) {
	fmt.Fprintln(w, "# The command line")
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		if c.Runnable() {
			fmt.Fprintf(w, "\n## %s\n\n", c.CommandPath())
			text := c.Long
			if text == "" {
				text = c.Short + "."
			}
			fmt.Fprintf(w, "%s\n\n    %s\n", text, c.UseLine())
			first := true
			each := func(f *pflag.Flag) {
				if f.Hidden || f.Name == "help" {
					return
				}
				if first {
					fmt.Fprint(w, "\n| flag | default | |\n| --- | --- | --- |\n")
					first = false
				}
				def := f.DefValue
				if def == "" || def == "[]" || def == "false" {
					def = "–"
				}
				fmt.Fprintf(w, "| `--%s` | %s | %s |\n", f.Name, strings.ReplaceAll(def, "\n", `\n`), strings.ReplaceAll(f.Usage, "|", `\|`))
			}
			c.NonInheritedFlags().VisitAll(each)
			c.InheritedFlags().VisitAll(each)
		}
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk(root)
	fmt.Fprint(w, "\nExit codes: 0 done, 1 failed, 2 a mistake in the command line, 130 interrupted.\n")
}

func opsPage(w io.Writer, _ *cobra.Command) {
	fmt.Fprint(w, "# Ops\n\nEvery op of the table in package op. A composed op runs on its kernel where a backend has one, else as its composition; a primitive one has a reference in float64.\n\n")
	fmt.Fprint(w, "| op | what it computes | kind | definition | gradient | on the CPU | StableHLO | ONNX |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	cell := func(s string) string {
		if s == "" {
			return "–"
		}
		return strings.ReplaceAll(s, "|", `\|`)
	}
	for _, o := range op.All() {
		d := op.Describe(o)
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", d.Name, cell(d.Doc), d.Kind, cell(d.Definition), cell(d.Gradient), cell(cpu.Support(o)), cell(d.StableHLO), cell(d.ONNX))
	}
}

func layersPage(w io.Writer, _ *cobra.Command) {
	fmt.Fprint(w, "# Layers\n\nThe classes that a specification can name, with their settings and defaults (empty numbers and words are to be given). Names and defaults are Keras's where Keras has the layer. In Go each has a constructor of the same or a shorter name in package nn.\n\n")
	fmt.Fprint(w, "| class | settings |\n| --- | --- |\n")
	for _, class := range nn.Classes() {
		fmt.Fprintf(w, "| %s | `%s` |\n", class, strings.ReplaceAll(string(nn.Defaults(class)), "|", `\|`))
	}
	fmt.Fprintf(w, "\nActivations: %s.\n\nInitialisers: %s.\n", strings.Join(nn.Activations(), ", "), strings.Join(nn.Initializers(), ", "))
}

//go:embed pages/xla.md
var xlaText string

// xlaPage is the page on XLA, with every op: how it is lowered and on what it is tested.
func xlaPage(w io.Writer, _ *cobra.Command) {
	fmt.Fprint(w, xlaText)
	fmt.Fprint(w, "## Ops\n\nEach op's samples run in the conformance suite on the CPU plugin: results against float64 references, twice with the same bits, no allocation after the first run.\n\n")
	fmt.Fprint(w, "| op | becomes | samples run | not run, because |\n| --- | --- | --- | --- |\n")
	for _, o := range op.All() {
		d, n, how := op.Describe(o), 0, ""
		for _, s := range o.Samples {
			if s.Bad == "" && o.NoLower == "" {
				n++
			}
		}
		switch {
		case o.Lower != nil && d.StableHLO != "":
			how = "`" + d.StableHLO + "`"
		case o.Lower != nil:
			how = "several instructions"
		case o.Decompose != nil:
			how = "its composition"
		default:
			how = "–"
		}
		why := o.NoLower
		if why == "" {
			why = "–"
		}
		fmt.Fprintf(w, "| %s | %s | %d | %s |\n", o.Name, how, n, why)
	}
}

func debugPage(w io.Writer, _ *cobra.Command) {
	fmt.Fprint(w, `# Debugging

`+"`JOULE_DEBUG`"+` is a comma-separated list of settings, such as `+"`JOULE_DEBUG=nan,dispatch joule train`"+`.

| setting | what it does |
| --- | --- |
`)
	for _, s := range jdebug.Table {
		fmt.Fprintf(w, "| `%s=%s` | %s |\n", s.Key, s.Args, s.Doc)
	}
	fmt.Fprint(w, `
| symptom | first step |
| --- | --- |
| the loss is not a number | nothing: the training stops by itself and names the layer; `+"`nan=1`"+` finds the Go line at the first step |
| a result is wrong | `+"`check=ref`"+` runs every node on the float64 reference too and stops at the first that differs |
| it is wrong only on this processor | `+"`isa=portable`"+`, then `+"`isa=avx2`"+`: the first that is wrong names the kernels |
| a pass may have broken the graph | `+"`dump=all`"+` prints it after each; `+"`pass=-NAME`"+` leaves one out |
| a step is slower than expected | `+"`joule explain`"+`: each node beside what the machine could do; `+"`dispatch=1`"+` says which kernel it got and why |
`)
}
