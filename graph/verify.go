package graph

import "fmt"

// Verify checks what every graph must keep: each node after its inputs and in its own graph, types as the op infers them,
// names of inputs, variables and outputs unique, updates that fit.
func (g *Graph) Verify() error {
	names := map[string]string{}
	for i, n := range g.nodes {
		bad := func(format string, args ...any) error {
			return &Error{Op: n.op.Name, Scope: n.scope, Site: n.Site(), Rule: "verify: " + fmt.Sprintf(format, args...)}
		}
		if n.g != g || n.id != i {
			return bad("node %d does not belong where it stands", i)
		}
		types := make([]Type, len(n.in))
		for j, x := range n.in {
			if x.g != g || x.id >= i {
				return bad("operand %d does not come before the node", j)
			}
			if n.op != OpPart {
				if len(x.out) != 1 {
					return bad("operand %d has %d results", j, len(x.out))
				}
				types[j] = x.out[0]
			}
		}
		if n.op == OpPart {
			types = n.in[0].out
		}
		out, err := n.op.Infer(n.attrs, types)
		if err != nil {
			return bad("%v", err)
		}
		if len(out) != len(n.out) {
			return bad("has %d results, its op infers %d", len(n.out), len(out))
		}
		for j := range out {
			if !out[j].Equal(n.out[j]) {
				return bad("result %d is %v, its op infers %v", j, n.out[j], out[j])
			}
		}
		if n.op == OpInput || n.op == OpVariable {
			if was, ok := names[NameOf(n)]; ok {
				return bad("the name %q is taken by an earlier %s", NameOf(n), was)
			}
			names[NameOf(n)] = n.op.Name
		}
	}
	outs := map[string]bool{}
	for _, o := range g.outputs {
		if o.Node.g != g {
			return &Error{Op: "output", Rule: fmt.Sprintf("verify: output %q belongs to another graph", o.Name)}
		}
		if outs[o.Name] {
			return &Error{Op: "output", Rule: fmt.Sprintf("verify: two outputs are named %q", o.Name)}
		}
		outs[o.Name] = true
	}
	for _, u := range g.updates {
		if u.Var.g != g || u.Value.g != g || u.Var.op != OpVariable || !u.Var.Type().Equal(u.Value.Type()) {
			return &Error{Op: "update", Rule: fmt.Sprintf("verify: update of %q does not fit", NameOf(u.Var))}
		}
	}
	return nil
}
