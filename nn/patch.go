package nn

import (
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["PatchEmbedding"] = func() kind { return &patches{weights: defaultWeights} }
}

type patches struct {
	Size       int  `json:"patch_size"`
	Units      int  `json:"output_dim"`
	ClassToken bool `json:"class_token"`
	weights
}

// PatchEmbedding cuts an image [height, width, channels] into squares of size pixels and projects each to units features: the sequence [patches, units] that a vision Transformer reads, row by
// row (arXiv:2010.11929). With the option ClassToken a learned vector stands before them. Positions are a layer of their own (PositionEmbedding).
func PatchEmbedding(size, units int, opts ...Option) *Layer {
	return layer("PatchEmbedding", &patches{Size: size, Units: units, weights: defaultWeights}, opts)
}

// ClassToken puts a learned vector before the patches, whose place at the end of the Transformer stands for the whole image.
func ClassToken() Option {
	return setting{"ClassToken", func(k kind) bool {
		p, ok := k.(*patches)
		if ok {
			p.ClassToken = true
		}
		return ok
	}}
}

func (p *patches) check() error {
	return first(positive("patch_size", p.Size), positive("output_dim", p.Units), p.weights.check())
}

func (p *patches) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	s := in.Shape()
	if len(s) != 4 || !in.DType().IsFloat() {
		c.Fail("takes images of floats [batch height width channels], not %v", in.Type())
	}
	if s[1] == 0 || s[2] == 0 || s[1]%p.Size != 0 || s[2]%p.Size != 0 {
		c.Fail("images of %d×%d cannot be cut into squares of %d: both must be multiples of patch_size", s[1], s[2], p.Size)
	}
	b, rows, cols, ch := s[0], s[1]/p.Size, s[2]/p.Size, s[3]
	n, k := rows*cols, p.Size*p.Size*ch
	// [b rows size cols size ch] to [b rows cols size size ch]
	cut := op.Transpose(op.Reshape(in, b, rows, p.Size, cols, p.Size, ch), 0, 1, 3, 2, 4, 5)
	w := c.Param("kernel", p.KernelInit, true, p.Size, p.Size, ch, p.Units)
	y := p.finish(c, c.matmul(op.Reshape(cut, b*n, k), op.Reshape(w, k, p.Units)), p.Units)
	y = op.Reshape(y, b, n, p.Units)
	if p.ClassToken {
		token := c.Param("class_token", Zeros, true, 1, p.Units)
		y = op.Concat(1, op.BroadcastTo(op.Reshape(token, 1, 1, p.Units), b, 1, p.Units), y)
	}
	return y
}
