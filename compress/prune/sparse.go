package prune

import (
	"errors"
	"fmt"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// SparseLayer is what became of a matrix of weights.
type SparseLayer struct {
	Name   string  `json:"name"`
	Format string  `json:"format,omitempty"` // nn.SparseBlock or nn.SparsePairs, "" where it stays dense
	Kept   float64 `json:"kept"`             // share of the arithmetic that is left
	Why    string  `json:"why,omitempty"`    // it stays dense
	Before int     `json:"bytes_before"`
	After  int     `json:"bytes_after"`
}

// ErrNoSparse says that no matrix of a model would be faster as a sparse one.
var ErrNoSparse = errors.New("prune: no matrix of weights would be faster as a sparse one")

const (
	// Up to these shares of inputs kept, products of blocks beat dense ones at every size that was measured (docs/compress.md): of few rows, and of more, for which the dense product is better, also on a unit for matrices.
	mostBlocksFew, mostBlocks = 0.55, 0.3
	// Products of pairs (2:4) beat dense ones where weights are read for few rows and do not fit in the nearest caches.
	fewRows, leastPairs = 4, 1 << 20
)

// Sparse keeps the matrices of a trained model whose zeros follow a pattern (Magnitude.Pattern, after Model.Merge) as sparse ones, where products with rows rows (the batch, times the positions of a sequence) get faster by that;
// others stay dense, and the result says why. If all do, the error is ErrNoSparse. The new model is for prediction: it saves, loads and evaluates like any other, but its sparse matrices are not trained.
func Sparse(m *train.Model, rows int) (*train.Model, []SparseLayer, error) {
	if rows < 1 {
		return nil, nil, fmt.Errorf("prune: products of %d rows; at least 1", rows)
	}
	depths, err := m.ProductDepths()
	if err != nil {
		return nil, nil, fmt.Errorf("prune: %w", err)
	}
	formats, err := m.Formats()
	if err != nil {
		return nil, nil, fmt.Errorf("prune: %w", err)
	}
	var report []SparseLayer
	values := map[string]*tensor.Tensor{}
	some := false
	for _, p := range m.Params() {
		v, err := m.State().Get(p.Name)
		if err != nil {
			return nil, nil, fmt.Errorf("prune: %w", err)
		}
		values[p.Name] = v
		k := depths[p.Name]
		if _, other := formats[p.Name]; k == 0 || other || p.Type.DType != dtype.F32 {
			continue
		}
		n := v.Len() / k
		l := SparseLayer{Name: p.Name, Kept: 1, Before: p.Type.Bytes(), After: p.Type.Bytes()}
		w := v.F32()
		inputs := blocksOf(w, k, n)
		kept := 0
		for _, in := range inputs {
			kept = max(kept, len(in))
		}
		kept = max(4, (kept+3)/4*4)
		most := mostBlocks
		if rows <= fewRows {
			most = mostBlocksFew
		}
		pairs := k%8 == 0 && arePairs(w, k, n)
		switch {
		case n >= blockWidth && float64(kept) <= most*float64(k):
			a := op.SparseAttrs{K: k, N: n, Kept: kept}
			values[p.Name], values[p.Name+"_index"] = toBlocks(w, a, inputs)
			formats[p.Name] = nn.Format{Bits: 32, Sparse: nn.SparseBlock, Kept: kept}
			l.Format, l.Kept = nn.SparseBlock, float64(kept)/float64(k)
		case pairs && rows <= fewRows && k*n >= leastPairs:
			a := op.SparseAttrs{K: k, N: n, Kept: k / 2, Pairs: true}
			values[p.Name], values[p.Name+"_index"] = toPairs(w, a)
			formats[p.Name] = nn.Format{Bits: 32, Sparse: nn.SparsePairs}
			l.Format, l.Kept = nn.SparsePairs, 0.5
		case pairs:
			l.Why = fmt.Sprintf("2:4 would be no faster for %d rows and a matrix [%d, %d]: it is where at most %d rows meet a matrix of at least %d weights", rows, k, n, fewRows, leastPairs)
		case n < blockWidth:
			l.Why = fmt.Sprintf("its %d outputs fill no panel of %d", n, blockWidth)
		default:
			l.Why = fmt.Sprintf("its zeros follow no pattern that is faster: a panel of %d outputs needs %d of the %d inputs, and for %d rows it may be a share of %g", blockWidth, min(kept, k), k, rows, most)
		}
		if l.Format != "" {
			l.After = values[p.Name].Len()*4 + len(values[p.Name+"_index"].Bytes())
			some = true
		}
		report = append(report, l)
	}
	if !some {
		err := ErrNoSparse
		for _, l := range report {
			err = fmt.Errorf("%w; %s: %s", err, l.Name, l.Why)
		}
		if len(report) == 0 {
			err = fmt.Errorf("%w: it has no product of rows with a matrix", err)
		}
		return nil, report, err
	}
	net, err := m.Net.WithFormats(formats)
	if err != nil {
		return nil, nil, fmt.Errorf("prune: %w", err)
	}
	out, err := m.With(net)
	if err != nil {
		return nil, nil, fmt.Errorf("prune: %w", err)
	}
	for _, p := range out.Params() {
		if err := out.State().Set(p.Name, values[p.Name]); err != nil {
			return nil, nil, fmt.Errorf("prune: %w", err)
		}
	}
	return out, report, nil
}

// blocksOf lists the inputs that each panel of outputs needs.
func blocksOf(w []float32, k, n int) [][]int32 {
	var out [][]int32
	for from := 0; from < n; from += blockWidth {
		in := []int32{}
		for i := range k {
			if slices.ContainsFunc(w[i*n+from:i*n+min(n, from+blockWidth)], func(v float32) bool { return v != 0 }) {
				in = append(in, int32(i))
			}
		}
		out = append(out, in)
	}
	return out
}

// arePairs reports whether each output has at most two weights among every four inputs.
func arePairs(w []float32, k, n int) bool {
	for i := 0; i+4 <= k; i += 4 {
		for j := range n {
			c := 0
			for g := range 4 {
				if w[(i+g)*n+j] != 0 {
					c++
				}
			}
			if c > 2 {
				return false
			}
		}
	}
	return true
}

func toBlocks(w []float32, a op.SparseAttrs, inputs [][]int32) (values, index *tensor.Tensor) {
	tv, ti := a.Types()
	values, index = tensor.New(tv.DType, tv.Shape...), tensor.New(ti.DType, ti.Shape...)
	for p, in := range inputs {
		for s, i := range in {
			index.I32()[p*a.Kept+s] = i
			from := p * blockWidth
			copy(values.F32()[(p*a.Kept+s)*blockWidth:], w[int(i)*a.N+from:int(i)*a.N+min(a.N, from+blockWidth)])
		}
	}
	return values, index
}

func toPairs(w []float32, a op.SparseAttrs) (values, index *tensor.Tensor) {
	tv, ti := a.Types()
	values, index = tensor.New(tv.DType, tv.Shape...), tensor.New(ti.DType, ti.Shape...)
	for j := range a.N {
		p, col := j/blockWidth, j%blockWidth
		for g := range a.K / 4 {
			c, places := 0, 0
			for i := range 4 {
				if v := w[(4*g+i)*a.N+j]; v != 0 {
					values.F32()[(p*a.Kept+2*g+c)*blockWidth+col] = v
					places |= i << (2 * c)
					c++
				}
			}
			index.U8()[(p*a.K/4+g)*blockWidth+col] = uint8(places)
		}
	}
	return values, index
}
