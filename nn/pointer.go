package nn

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["PointerGenerator"] = func() kind { return &pointer{KernelInit: GlorotUniform} }
}

type pointer struct {
	KeyDim     int         `json:"key_dim"`
	KernelInit Initializer `json:"kernel_initializer"`
}

// PointerGenerator lets a decoder copy tokens of what it reads beside choosing them from the vocabulary (See et al., arXiv:1704.04368, equations 8 and 9, with attention of one head of
// keyDim values in place of an additive one). Its operands are scores [time, vocabulary], the decoder's states [time, width] that they were made of, a memory [positions, width], the
// tokens i32 [positions] that the memory is of, and perhaps a last i32, one number for each example: how many positions count.
//
//	a = softmax(q·kᵀ/√keyDim) over the positions;  c = σ(v·state + a·(u·memory) + b)
//	P(token) = (1-c)·softmax(scores) + c·Σ a at the positions where the token stands
//
// It gives log P [time, vocabulary], scores for a Softmax behind it. Of no positions nothing is copied.
func PointerGenerator(keyDim int, opts ...Option) *Layer {
	return layer("PointerGenerator", &pointer{keyDim, GlorotUniform}, opts)
}

func (p *pointer) kernelInit() *Initializer { return &p.KernelInit }

func (p *pointer) check() error {
	return first(positive("key_dim", p.KeyDim), p.KernelInit.check("kernel_initializer"))
}

// leastLog is what a probability is at least, so that it has a logarithm.
const leastLog = 1e-30

func (p *pointer) operands(c *Call, x []*graph.Node) error {
	kinds := []struct {
		what  string
		rank  int
		float bool
	}{{"scores [batch time vocabulary]", 3, true}, {"states [batch time width]", 3, true}, {"a memory [batch positions width]", 3, true}, {"tokens i32 [batch positions]", 2, false}, {"lengths i32 [batch]", 1, false}}
	if len(x) < 4 || len(x) > 5 {
		return fmt.Errorf("takes scores, states, a memory, its tokens and perhaps lengths, was given %d operands", len(x))
	}
	for i, n := range x {
		if k := kinds[i]; len(n.Shape()) != k.rank || k.float != n.DType().IsFloat() || !k.float && !n.DType().IsInt() {
			return fmt.Errorf("operand %d is %v where %s are needed", i, n.Type(), k.what)
		}
	}
	scores, states, memory, tokens := x[0].Shape(), x[1].Shape(), x[2].Shape(), x[3].Shape()
	switch {
	case scores[1] != states[1]:
		return fmt.Errorf("scores of %d steps and states of %d", scores[1], states[1])
	case memory[1] != tokens[1]:
		return fmt.Errorf("a memory of %d positions and %d tokens", memory[1], tokens[1])
	case memory[1] == 0:
		return fmt.Errorf("the memory has no positions")
	case scores.Size() > math.MaxInt32:
		return fmt.Errorf("scores %v are more than can be numbered", scores)
	}
	return nil
}

func (p *pointer) call(c *Call, x []*graph.Node) *graph.Node {
	if err := p.operands(c, x); err != nil {
		c.Fail("%v", err)
	}
	scores, states, memory, tokens := x[0], x[1], x[2], op.Convert(x[3], dtype.I32)
	b, t, v, n := scores.Shape()[0], scores.Shape()[1], scores.Shape()[2], memory.Shape()[1]
	product := func(name string, x *graph.Node, units int) (y *graph.Node) {
		c.within(name, func() {
			s := x.Shape()
			y = op.Reshape(c.product(op.Reshape(x, s[0]*s[1], s[2]), "kernel", p.KernelInit, s[2], units), s[0], s[1], units)
		})
		return y
	}
	query := product("query", states, p.KeyDim)
	key, weight := product("key", memory, p.KeyDim), op.Reshape(product("context", memory, 1), b, n) // u·memory is kept: the weighted sum of memories never is
	if c.Cache != nil {
		if !c.Cache.fixed[memory] {
			c.Fail("where a sequence grows by and by, it can copy from one that is there from the beginning, not from another that grows")
		}
		key, weight = c.Cache.once(c, "memory_keys", key), c.Cache.once(c, "memory_weights", weight)
	}
	var look *graph.Node // [batch time positions]
	var gate *graph.Node // [batch time 1]
	c.within("attention", func() {
		score := op.Dot(query, key, op.DotAttrs{BatchA: []int{0}, BatchB: []int{0}, ContractA: []int{2}, ContractB: []int{2}})
		score = op.Mul(score, op.Like(score, 1/math.Sqrt(float64(p.KeyDim))))
		if len(x) < 5 {
			look = op.Softmax(score)
			return
		}
		keep := counted(op.Convert(x[4], dtype.I32), n, b, t, n)
		look = op.Mul(op.Softmax(op.Select(keep, score, op.Like(score, -1e30))), op.Convert(keep, score.DType()))
	})
	c.within("gate", func() {
		own := op.Reshape(c.product(op.Reshape(states, b*t, states.Shape()[2]), "kernel", p.KernelInit, states.Shape()[2], 1), b, t)
		seen := op.Dot(look, weight, op.DotAttrs{BatchA: []int{0}, BatchB: []int{0}, ContractA: []int{2}, ContractB: []int{1}})
		z := op.Add(op.Add(own, seen), op.Reshape(c.Param("bias", Zeros, true, 1), 1, 1))
		gate = op.Reshape(op.Sigmoid(z), b, t, 1)
		if len(x) == 5 { // of no positions nothing is copied
			some := op.Convert(op.Gt(x[4], op.Like(x[4], 0)), gate.DType())
			gate = op.Mul(gate, op.Reshape(some, b, 1, 1))
		}
	})
	var y *graph.Node
	c.within("mixture", func() {
		words := op.Mul(op.Softmax(scores), op.Sub(op.Like(gate, 1), gate))
		// Where in words, taken as one list, the token of each position stands, for each step.
		row := op.Reshape(op.Iota(c.G, graph.T(dtype.I32, b*t), 0), b, t, 1)
		token := op.Min(op.Max(tokens, op.Like(tokens, 0)), op.Like(tokens, float64(v-1)))
		at := op.Add(op.BroadcastTo(op.Mul(row, op.Like(row, float64(v))), b, t, n), op.BroadcastTo(op.Reshape(token, b, 1, n), b, t, n))
		copies := op.Mul(look, gate)
		all := op.ScatterAdd(op.Reshape(words, b*t*v), op.Reshape(at, b*t*n), op.Reshape(copies, b*t*n), 0)
		y = op.Reshape(op.Log(op.Max(all, op.Like(all, leastLog))), b, t, v)
	})
	return y
}
