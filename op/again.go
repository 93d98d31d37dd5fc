package op

import "github.com/jouleml/joule/graph"

// AgainOp marks where a value is read for computing something a second time: see pass.Checkpoint.
var AgainOp *graph.Op

// AgainAttrs are the attributes of AgainOp: what has one mark is one value for cse, what has another is not.
type AgainAttrs struct{ Mark int }

// Again is x, as the operand of nodes that are not to be merged with equal ones that read x itself.
func Again(x *node, mark int) *node { return x.Graph().Apply(AgainOp, AgainAttrs{mark}, x) }

func init() {
	AgainOp = add(def[AgainAttrs]{
		Name: "again", Doc: "x itself, read for computing something a second time: keeps the copies from being merged with the originals", Why: "it is a statement to the passes", Kind: graph.Movement, ONNX: "Identity",
		Infer:   func(_ AgainAttrs, in []typ) ([]typ, error) { return in, operands(in, 1) },
		Ref:     func(_ AgainAttrs, in, out []value) { copy(out[0].Data, in[0].Data) },
		Bytes:   func(_ AgainAttrs, _, _ []typ) (read, written int64) { return 0, 0 }, // the last pass takes it out
		Grad:    func(_ AgainAttrs, _ *node, d []*node) []*node { return []*node{d[0]} },
		Lower:   func(_ AgainAttrs, b text, in []hlo, _ []typ) []hlo { return []hlo{b.Apart(in[0])} },
		Samples: []graph.Sample{{Name: "f32", Attrs: AgainAttrs{1}, In: types(f32(5))}},
	})
}
