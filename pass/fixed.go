package pass

import "github.com/jouleml/joule/graph"

// Fixed says, by ID, which nodes follow from constants and from variables that a run of g does not change. A backend may compute them once and not at each run.
func Fixed(g *graph.Graph) []bool {
	changed := map[*graph.Node]bool{}
	for _, u := range g.Updates() {
		changed[u.Var] = true
	}
	fixed := make([]bool, len(g.Nodes()))
	for i, n := range g.Nodes() {
		if fixed[i] = n.Op() != graph.OpInput && !changed[n]; fixed[i] {
			for _, x := range n.Inputs() {
				fixed[i] = fixed[i] && fixed[x.ID()]
			}
		}
	}
	return fixed
}
