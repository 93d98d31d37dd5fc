package nn

import (
	"slices"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Which tables and last layers are split, and of which the caller is handed some classes' scores in place of the model's output: shapes, and the parameters of which a rank has a part.
func TestSplitEnds(t *testing.T) {
	const features, classes = 8, 601
	of := func(layers ...*Layer) func() (*Model, error) {
		return func() (*Model, error) { return Sequential(layers...), nil }
	}
	functional := func(f func(x *Value) []*Value) func() (*Model, error) {
		return func() (*Model, error) {
			x := InputOf("x", dtype.F32, features)
			return Functional([]*Value{x}, f(x))
		}
	}
	for name, c := range map[string]struct {
		net    func() (*Model, error)
		words  bool // the input is numbers
		whole  bool // the caller takes no scores
		scores bool
		parts  []string
	}{
		"last":                {net: of(Dense(classes, Softmax)), scores: true, parts: []string{"dense/bias", "dense/kernel"}},
		"softmax behind":      {net: of(Dense(classes), Activate(Softmax)), scores: true, parts: []string{"dense/bias", "dense/kernel"}},
		"layer behind":        {net: of(Dense(classes), SoftmaxLayer()), scores: true, parts: []string{"dense/bias", "dense/kernel"}},
		"no softmax":          {net: of(Dense(classes))},
		"few classes":         {net: of(Dense(LeastSplit-1, Softmax))},
		"as many as needed":   {net: of(Dense(LeastSplit, Softmax)), scores: true, parts: []string{"dense/bias", "dense/kernel"}},
		"nobody takes them":   {net: of(Dense(classes, Softmax)), whole: true},
		"activated":           {net: of(Dense(classes, ReLU), Activate(Softmax))},
		"fewer units before":  {net: of(Dense(classes-1, ReLU), Dense(classes, Softmax)), scores: true, parts: []string{"dense_1/bias", "dense_1/kernel"}},
		"more units before":   {net: of(Dense(classes+1, ReLU), Dense(classes, Softmax)), parts: []string{"dense/bias", "dense/kernel", "dense_1/kernel"}},
		"more, softmax apart": {net: of(Dense(classes+1, ReLU), Dense(classes), Activate(Softmax)), parts: []string{"dense/bias", "dense/kernel", "dense_1/kernel"}},
		"looked up":           {net: of(Embedding(classes, 10), Activate(Softmax)), words: true, parts: []string{"embedding/embeddings"}},
		"looked up as scores": {net: of(Embedding(classes, classes), SoftmaxLayer()), words: true, parts: []string{"embedding/embeddings"}},
		"value looked up": {net: func() (*Model, error) {
			x := InputOf("x", dtype.I32, features)
			return Functional([]*Value{x}, []*Value{Activate(Softmax).On(Embedding(classes, classes).On(x))})
		}, words: true, parts: []string{"embedding/embeddings"}},
		"value": {net: functional(func(x *Value) []*Value { return []*Value{Activate(Softmax).On(Dense(classes).On(x))} }), scores: true, parts: []string{"dense/bias", "dense/kernel"}},
		"not the end": {net: functional(func(x *Value) []*Value {
			y := Dense(classes).On(x)
			return []*Value{Add().On(Activate(Softmax).On(y), y)}
		})},
		"two outputs": {net: functional(func(x *Value) []*Value { return []*Value{Dense(classes, Softmax).On(x), Dense(3).On(x)} })},
	} {
		t.Run(name, func(t *testing.T) {
			for rank := range 2 {
				m, err := c.net()
				if err != nil {
					t.Fatal(err)
				}
				in := graph.T(dtype.F32, 4, features)
				if c.words {
					in = graph.T(dtype.I32, 4, features)
				}
				split := &Split{Rank: rank, Of: 2, Group: &op.Group{Name: "tensor"}, Ends: !c.whole}
				call := &Call{Split: split}
				var y *graph.Node
				if _, err := graph.Build(func(g *graph.Graph) {
					call.G = g
					y = m.Call(call, []*graph.Node{g.Input("x", in)})[0]
					g.Output("y", y)
				}); err != nil {
					t.Fatal(err)
				}
				var parts []string
				for p := range split.Divisible() {
					parts = append(parts, p)
				}
				if slices.Sort(parts); !slices.Equal(parts, c.parts) {
					t.Errorf("parts of %v, not of %v", parts, c.parts)
				}
				s := call.Scores
				if (s != nil) != c.scores {
					t.Fatalf("scores are handed over: %v", s != nil)
				}
				if s == nil {
					continue
				}
				lo, hi := split.Part(s.Of, rank)
				if s.Part != y || s.Lo != lo || s.Hi != hi || s.Part.Shape()[1] != hi-lo {
					t.Errorf("rank %d has scores %v, said to be %d to %d of %d", rank, s.Part.Type(), s.Lo, s.Hi, s.Of)
				}
			}
		})
	}
}
