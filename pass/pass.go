// Package pass holds the named rewrites that turn the graph a user built into the one that runs.
//
// Every pass takes a graph to an equal one: whatever list of passes is left out, results are the same (up to the rounding of floats),
// and a test leaves each out in turn. JOULE_DEBUG: pass=-NAME leaves one out, dump=NAME prints the graph after it. Every graph is verified
// by graph.Rewrite when it is made.
package pass

import (
	"fmt"
	"os"
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/debug"
)

// Pass is a named rewrite.
type Pass struct {
	Name string
	Doc  string
	Run  func(g *graph.Graph) (*graph.Graph, error)
}

// Standard are the passes for every backend, in order.
var Standard = []Pass{
	{"loops", "a loop and the same loop that saves its states become one; what nothing needs of a loop is taken out", Loops},
	{"simplify", "algebra that holds for every value: x+0, x·1, broadcasts of broadcasts", Simplify},
	{"layout", "transposes move to where they undo each other, or into what can read either order", Layout},
	{"fold", "nodes of which all operands are constants become constants", Fold},
	{"cse", "equal nodes become one", CSE},
}

// Apply runs passes in order.
func Apply(g *graph.Graph, passes ...Pass) (*graph.Graph, error) {
	for _, p := range passes {
		if slices.Contains(debug.Values("pass"), "-"+p.Name) {
			continue
		}
		out, err := p.Run(g)
		if err != nil {
			return nil, fmt.Errorf("pass %s: %w", p.Name, err)
		}
		if d := debug.Get("dump"); d == p.Name || d == "all" {
			saved := ""
			if before, after := Moved(g), Moved(out); before != after {
				saved = fmt.Sprintf(": transposes move %d bytes in a run, %d before", after, before)
			}
			fmt.Fprintf(os.Stderr, "# after pass %s%s\n%s\n", p.Name, saved, graph.Print(out))
		}
		g = out
	}
	return g, nil
}
