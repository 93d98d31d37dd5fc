package nn

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

// Format says how a matrix of weights is kept, if not as floats: in few bits, neighbours along the inputs sharing a scale (op.WeightAttrs). The operand of its product is brought to
// 8 bits on its way in. Such weights are not trained. Beside the parameter "kernel", [outputs, inputs] then, stand "kernel_scale" and, with Factors, "kernel_factor" [inputs], which the
// operand is multiplied with first.
type Format struct {
	Bits    int  `json:"bits"`  // 8 or 4
	Group   int  `json:"group"` // weights that share a scale: a multiple of 8; 0: all of an output
	Factors bool `json:"factors,omitempty"`

	// Sparse is the pattern of a matrix of floats (Bits 32) of which only some weights are kept: "block" or "2:4" (op.SparseAttrs). The parameter holds the values, [panels, kept, 16], and beside "kernel" stands "kernel_index".
	Sparse string `json:"sparse,omitempty"`
	Kept   int    `json:"kept,omitempty"` // inputs of a panel, of blocks
}

// Patterns of sparse matrices.
const (
	SparseBlock = "block"
	SparsePairs = "2:4"
)

// sparse says how a matrix [k, n] is kept.
func (f Format) sparse(k, n int) (op.SparseAttrs, error) {
	a := op.SparseAttrs{K: k, N: n, Kept: f.Kept, Pairs: f.Sparse == SparsePairs}
	if a.Pairs {
		a.Kept = k / 2
	}
	if f.Sparse != SparseBlock && !a.Pairs {
		return a, unknown("pattern", f.Sparse, []string{SparseBlock, SparsePairs})
	}
	if f.Bits != 32 || f.Group != 0 || f.Factors {
		return a, fmt.Errorf("sparse weights are floats: bits must be 32, and there are neither groups nor factors")
	}
	return a, a.Check()
}

func (f Format) attrs(k int) op.WeightAttrs {
	return op.WeightAttrs{Bits: f.Bits, Group: f.Group, K: k}
}

// WithFormats is the model with matrices of weights kept in other formats, by the names of their parameters ("dense/kernel"). Values are not converted; package compress/quant does that.
func (m *Model) WithFormats(formats map[string]Format) (*Model, error) {
	out, err := m.copied()
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(formats) {
		var at *Layer
		for _, l := range out.layers {
			if strings.HasPrefix(name, l.name+"/") && (at == nil || len(l.name) > len(at.name)) {
				at = l
			}
		}
		if at == nil {
			return nil, fmt.Errorf("nn: no layer has a parameter %q", name)
		}
		if at.formats == nil {
			at.formats = map[string]Format{}
		}
		at.formats[strings.TrimPrefix(name, at.name+"/")] = formats[name]
	}
	return out, nil
}

// WithFloats is the model with the matrices of the given names, which are kept in other formats, as floats again. Values are not converted.
func (m *Model) WithFloats(names ...string) (*Model, error) {
	out, err := m.copied()
	if err != nil {
		return nil, err
	}
	for _, l := range out.layers {
		for _, name := range names {
			if short, ok := strings.CutPrefix(name, l.name+"/"); ok {
				delete(l.formats, short)
			}
		}
	}
	return out, nil
}

// copied is a model like m with layers of its own.
func (m *Model) copied() (*Model, error) {
	j, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return ModelOf(j)
}

// checkFormats reports formats that the layer has no use for.
func (c *Call) checkFormats(l *Layer) {
	for _, name := range sortedKeys(l.formats) {
		if c.known[c.Prefix+l.name+"/"+name] == nil {
			c.Fail("has a format for %q, which is not among its matrices of weights", name)
		}
	}
}

// format is how the layer's parameter of that name is kept; ok is false where it is floats.
func (c *Call) format(name string) (f Format, ok bool) {
	f, ok = c.layer.formats[c.prefix+name]
	return f, ok
}

// few is a matrix of n outputs and k inputs in a format.
func (c *Call) few(name string, f Format, n, k int) (w, scale *graph.Node, a op.WeightAttrs) {
	a = f.attrs(k)
	if err := a.Check(); err != nil {
		c.Fail("the format of its %s: %v", name, err)
	}
	if n > maxParam/k {
		c.Fail("its %s of %d×%d would have more than %d elements", name, n, k, maxParam)
	}
	tw, ts := a.Types(n)
	return c.holding(name, tw, n*k), c.fixed(name+"_scale", ts), a
}

// operand is what a product takes in place of x [M, K].
func (c *Call) operand(name string, f Format, x *graph.Node) *graph.Node {
	if !f.Factors {
		return x
	}
	k := x.Shape()[1]
	return op.Mul(x, op.Reshape(c.fixed(name+"_factor", graph.T(dtype.F32, k)), 1, k))
}

// product is x [M, K] times the layer's kernel of the given name and shape, whose last axes are the N outputs: [M, N].
func (c *Call) product(x *graph.Node, name string, init Initializer, dims ...int) *graph.Node {
	k, n := x.Shape()[1], 1
	for _, d := range dims {
		n *= d
	}
	n /= max(1, k)
	if c.Products != nil {
		c.Products(c.full(name), x)
	}
	f, ok := c.format(name)
	if !ok {
		w := c.Param(name, init, true, dims...)
		if len(dims) != 2 {
			w = op.Reshape(w, k, n)
		}
		return c.matmul(x, w)
	}
	if f.Sparse != "" {
		a, err := f.sparse(k, n)
		if err == nil && n > maxParam/k {
			err = fmt.Errorf("%d×%d would be more than %d elements", k, n, maxParam)
		}
		if err != nil {
			c.Fail("the format of its %s: %v", name, err)
		}
		values, index := a.Types()
		return op.SparseMatMul(x, c.fixed(name, values), c.fixed(name+"_index", index), a)
	}
	w, scale, a := c.few(name, f, n, k)
	y := op.QMatMul(c.operand(name, f, x), w, scale, a)
	if changes := c.changed(name, f, w, scale, a, dims); len(changes) > 0 {
		for _, m := range changes {
			x = c.matmul(x, m)
		}
		y = op.Add(y, x)
	}
	return y
}

// changed is what Change gives for a matrix of few bits of the given dims as floats: asked for once, shared afterwards.
func (c *Call) changed(name string, f Format, w, scale *graph.Node, a op.WeightAttrs, dims []int) []*graph.Node {
	full := c.full(name)
	out, ok := c.changes[full]
	if ok || c.Change == nil {
		return out
	}
	out = c.Change(c, Param{Name: full, Type: graph.T(dtype.F32, dims...), Decay: true}, func() *graph.Node {
		n := w.Shape()[0]
		rows := op.QRows(w, scale, op.Iota(c.G, graph.T(dtype.I32, n), 0), a) // [N, K]
		return op.Reshape(op.Transpose(c.operand(name, f, rows), 1, 0), dims...)
	})
	if c.changes == nil {
		c.changes = map[string][]*graph.Node{}
	}
	c.changes[full] = out
	return out
}
