package nn

import (
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Policy says in which element types a model computes; the names are Keras's.
type Policy string

const (
	// Float32 computes everything in f32.
	Float32 Policy = "float32"
	// MixedBFloat16 multiplies matrices of bf16 and adds up in f32 (Micikevicius et al., Mixed precision training, arXiv:1710.03740; Kalamkar et al., arXiv:1905.12322, for bf16,
	// which needs no scaling of the loss). Parameters are kept in f32 and rounded for each product, and what passes from layer to layer is rounded. Everything else, such as normalisations,
	// softmax, attention's scores, losses and the optimizer, is f32, and so are a model's outputs.
	MixedBFloat16 Policy = "mixed_bfloat16"
)

// Check says what is wrong with a policy; "" is Float32.
func (p Policy) Check() error {
	switch p {
	case "", Float32, MixedBFloat16:
		return nil
	}
	return unknown("precision", string(p), []string{string(Float32), string(MixedBFloat16)})
}

func (c *Call) mixed() bool { return c.Policy == MixedBFloat16 }

// round is x with the digits that bf16 has, under a mixed policy; x itself otherwise. It stays f32: arithmetic goes on with it, and a backend keeps the rounded form where
// something has to be kept.
func (c *Call) round(x *graph.Node) *graph.Node {
	if !c.mixed() || x.DType() != dtype.F32 {
		return x
	}
	return op.Convert(op.Convert(x, dtype.BF16), dtype.F32)
}

// dot is the product of f32 values over the axes that at names, in f32: of their rounded forms under a mixed policy.
func (c *Call) dot(x, w *graph.Node, at op.DotAttrs) *graph.Node {
	if c.mixed() {
		x, w, at.Out = op.Convert(x, dtype.BF16), op.Convert(w, dtype.BF16), dtype.F32
	}
	return op.Dot(x, w, at)
}

// matmul is the product of x [m, k] and w [k, n].
func (c *Call) matmul(x, w *graph.Node) *graph.Node {
	return c.dot(x, w, op.DotAttrs{ContractA: []int{1}, ContractB: []int{0}})
}

// moves reports whether layers of a kind only move or choose elements, or leave some out. Rounding before and after them is the same, so it waits for the next layer, and a convolution with the
// pooling behind it stays one kernel.
func moves(k kind) bool {
	switch k := k.(type) {
	case *flatten, *reshape, *permute, *repeat, *zeroPadding, *dropout:
		return true
	case *pool:
		return k.max
	}
	return false
}
