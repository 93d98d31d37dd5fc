package op

import (
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/internal/kernel/random"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Random numbers. They are counter-based: a pure function of the state, the stream and the position, so that a resumed run draws what
// an uninterrupted one would have drawn, and any number of threads draws the same.
var (
	RandomUniformOp *graph.Op // [0, 1), multiples of 2^-24
	RandomNormalOp  *graph.Op // mean 0, deviation 1
)

// RandomAttrs are the attributes of the random ops. Stream tells apart the nodes that draw from one state.
type RandomAttrs struct {
	Stream int
	Shape  shape.Shape
}

// The counter of a generator has room for so many bits of stream above so many of the state's count.
const (
	streamBits = 24
	countBits  = 64 - streamBits
)

// RandomSource is the sequence of a stream under a state {seed, count}: count below 2^40, so that no two streams overlap. A seed counts as the float64
// nearest to it, so that every backend, the float64 reference included, draws the same: whoever lets people choose seeds beyond ±2^53 must map them to distinct ones
// within (package train does).
func RandomSource(seed, count int64, stream int) random.Source {
	seed = tensor.Whole(float64(seed))
	return random.Source{Key: uint64(seed), Counter: uint64(stream)<<countBits | uint64(count)&(1<<countBits-1)}
}

func init() {
	RandomUniformOp = randomOp("random_uniform", "uniform numbers in [0, 1)", 1, func(s random.Source, dst []float32) { s.Uniform(dst, 0) }, uniformHLO)
	RandomNormalOp = randomOp("random_normal", "numbers of the standard normal distribution", 20, func(s random.Source, dst []float32) { s.Normal(dst, 0, 0, 1) }, normalHLO)
}

func randomOp(name, what string, flops int64, fill func(s random.Source, dst []float32), hloFill func(b text, words hlo) hlo) *graph.Op {
	state := func(seed, count int64) []*tensor.Tensor { return []*tensor.Tensor{tensor.Of([]int64{seed, count})} }
	in := types(graph.T(dtype.I64, 2))
	return add(def[RandomAttrs]{
		Name: name, Doc: what + ", f32, from the state i64 [2] of a seed and a count of steps (Philox4x32-10)",
		Why: "integer products of 64 bits, ten rounds for each four numbers", Kind: graph.Other,
		Infer: func(a RandomAttrs, in []typ) ([]typ, error) {
			if err := operands(in, 1); err != nil {
				return nil, err
			}
			if !in[0].Equal(graph.T(dtype.I64, 2)) {
				return nil, fmt.Errorf("the state must be i64[2], seed and count, not %v", in[0])
			}
			if a.Stream < 0 || a.Stream >= 1<<streamBits {
				return nil, fmt.Errorf("stream %d is outside [0, %d)", a.Stream, 1<<streamBits)
			}
			return one(dtype.F32, a.Shape)
		},
		Ref: func(a RandomAttrs, in, out []value) {
			x := make([]float32, len(out[0].Data))
			fill(RandomSource(tensor.Whole(in[0].Data[0]), tensor.Whole(in[0].Data[1]), a.Stream), x)
			for i, v := range x {
				out[0].Data[i] = float64(v)
			}
		},
		NoGrad: "the state is integers: no small change of it exists",
		FLOPs:  func(_ RandomAttrs, _, out []typ) int64 { return flops * int64(out[0].Shape.Size()) },
		Lower:  randomHLO(hloFill),
		Samples: []graph.Sample{
			{Name: "matrix", Attrs: RandomAttrs{1, shape.Of(7, 33)}, In: in, Data: state(42, 3), Tol: exact},
			{Name: "another stream", Attrs: RandomAttrs{2, shape.Of(7, 33)}, In: in, Data: state(42, 3), Tol: exact},
			{Name: "negative seed", Attrs: RandomAttrs{0, shape.Of(5)}, In: in, Data: state(-1, 1<<39), Tol: exact},
			{Name: "great seed", Attrs: RandomAttrs{1, shape.Of(9)}, In: in, Data: state(1<<53+1, 3), Tol: exact},
			{Name: "greatest seed", Attrs: RandomAttrs{1, shape.Of(9)}, In: in, Data: state(math.MaxInt64, 3), Tol: exact},
			{Name: "least seed", Attrs: RandomAttrs{1, shape.Of(9)}, In: in, Data: state(math.MinInt64+1, 3), Tol: exact},
			{Name: "many", Attrs: RandomAttrs{0, shape.Of(3, 100, 100)}, In: in, Data: state(0, 0), Tol: exact},
			{Name: "none", Attrs: RandomAttrs{0, shape.Of(0, 3)}, In: in, Data: state(1, 2)},
			{Name: "state", Attrs: RandomAttrs{0, shape.Of(3)}, In: types(graph.T(dtype.I32, 2)), Bad: "must be i64[2]"},
			{Name: "stream", Attrs: RandomAttrs{-1, shape.Of(3)}, In: in, Bad: "outside"},
		},
	})
}

// exact is a tolerance that only equal numbers pass.
const exact = 1e-30

// RandomUniform draws numbers in [0, 1) of the given shape from a state, i64 [2] = {seed, count}. The state does not change: whoever
// owns it adds to the count after each step. Nodes of one graph that are to differ need different streams.
func RandomUniform(state *node, stream int, dims ...int) *node {
	return state.Graph().Apply(RandomUniformOp, RandomAttrs{stream, slices.Clone(dims)}, state)
}

// RandomNormal draws from the standard normal distribution, as RandomUniform does from the uniform one.
func RandomNormal(state *node, stream int, dims ...int) *node {
	return state.Graph().Apply(RandomNormalOp, RandomAttrs{stream, slices.Clone(dims)}, state)
}
