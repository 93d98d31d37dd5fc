// Package prune removes weights: it sets them to zero while the model trains, more and more of them along the cubic schedule of Zhu & Gupta (arXiv:1710.01878), so that the others can take over.
//
// Magnitude removes the smallest (Han et al., arXiv:1506.02626), Movement those that training moves towards zero (arXiv:2005.07683), SNIP before training those that the loss depends on least (arXiv:1810.02340); Lottery
// finds a sparse network that learns from its first weights (arXiv:1803.03635). Shared lets the weights of a kernel take a few values that are learned (Deep Compression, arXiv:1510.00149).
//
// Zeros anywhere make a file smaller (train.Model.SavePacked); they do not make products faster. Zeros in a Pattern do, once package sparse has made another layout of them.
package prune

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Magnitude prunes kernels by the size of their weights. Pass it to Compile with train.Wrapped and to Fit as a callback; Model.Merge makes the zeros permanent.
type Magnitude struct {
	train.Hooks
	Sparsity    float64  // share of the weights that are zero in the end, in (0, 1); 0 with a pattern n:m, which says it
	Global      bool     // the smallest of all kernels together, not of each
	Pattern     Pattern  // where zeros may stand; kernels of products [inputs, outputs] alone are pruned with one
	Start, Stop float64  // shares of the training between which weights go; 0 and 0: from the start to one half
	Every       int64    // steps between two removals; 0: 50
	Skip        []string // patterns of names that are left alone (train.Matches)

	names  []string
	depths map[string]int                                                               // inputs of products, by name
	score  func(m *train.Model, name string, w, mask *tensor.Tensor) ([]float32, error) // nil: sizes
}

const maskPrefix = "mask/"

// Check says what is wrong with the settings.
func (p *Magnitude) Check() error {
	if p.Pattern != "" {
		if err := p.Pattern.Check(); err != nil {
			return err
		}
		if n, m := p.Pattern.ratio(); m > 0 {
			s := 1 - float64(n)/float64(m)
			if p.Sparsity != 0 && math.Abs(p.Sparsity-s) > 1e-9 {
				return fmt.Errorf("prune: the pattern %s makes the sparsity %g, not %g", p.Pattern, s, p.Sparsity)
			}
			p.Sparsity = s
		}
		if p.Global {
			return fmt.Errorf("prune: the pattern %s is one of each kernel; global does not go with it", p.Pattern)
		}
	}
	switch {
	case !(p.Sparsity > 0 && p.Sparsity < 1):
		return fmt.Errorf("prune: sparsity must be above 0 and below 1, not %g", p.Sparsity)
	case !(p.Start >= 0 && p.Stop >= p.Start && p.Stop <= 1):
		return fmt.Errorf("prune: start %g and stop %g must be shares of the training, in this order", p.Start, p.Stop)
	case p.Every < 0:
		return fmt.Errorf("prune: every %d steps makes no sense", p.Every)
	}
	return nil
}

func (p *Magnitude) on(param nn.Param) bool { return chosen(param, p.Skip) }

// chosen reports whether a parameter is a kernel that no pattern of skip matches.
func chosen(param nn.Param, skip []string) bool {
	return param.Decay && !slices.ContainsFunc(skip, func(s string) bool { return train.Matches(s, param.Name) })
}

// Freezes implements train.Wrapper.
func (p *Magnitude) Freezes(nn.Param) bool { return false }

// Wrap implements train.Wrapper: the weights times a mask of ones and zeros.
func (p *Magnitude) Wrap(c *nn.Call, param nn.Param, w *graph.Node) *graph.Node {
	if !p.on(param) {
		return w
	}
	if !slices.Contains(p.names, param.Name) {
		p.names = append(p.names, param.Name)
	}
	return op.Mul(w, c.Extra(maskPrefix+param.Name, nn.Ones, false, w.Shape()...))
}

// Begin implements train.Callback: it checks the settings.
func (p *Magnitude) Begin(t *train.Training) error {
	if err := p.Check(); err != nil {
		return err
	}
	return skips(t.Model, p.Skip)
}

// skips reports patterns that match no kernel, and such as leave none.
func skips(m *train.Model, skip []string) error {
	var kernels []string
	some := false
	for _, p := range m.Params() {
		if p.Decay {
			kernels = append(kernels, p.Name)
			some = some || chosen(p, skip)
		}
	}
	if err := train.Unmatched("kernel", skip, kernels); err != nil {
		return fmt.Errorf("prune: skip: %w", err)
	}
	if !some {
		return fmt.Errorf("prune: skip leaves none of the kernels %s", strings.Join(kernels, ", "))
	}
	return nil
}

// Target is the share of zeros after a share of the training.
func (p *Magnitude) Target(progress float64) float64 {
	begin, end := p.Start, p.Stop
	if begin == 0 && end == 0 {
		end = 0.5
	}
	if progress < begin {
		return 0
	}
	if progress >= end {
		return p.Sparsity
	}
	rest := 1 - (progress-begin)/(end-begin)
	return p.Sparsity * (1 - rest*rest*rest)
}

// AfterStep implements train.Callback.
func (p *Magnitude) AfterStep(t *train.Training) error {
	every := p.Every
	if every == 0 {
		every = 50
	}
	total := int64(t.Epochs) * int64(t.EpochSteps)
	progress := float64(t.Steps) / float64(max(1, total))
	done := p.Target(float64(t.Steps-every)/float64(max(1, total))) == p.Sparsity
	if t.Steps%every != 0 && t.Steps != total || done && t.Steps != total {
		return nil
	}
	return p.Apply(t.Model, p.Target(progress))
}

// Apply sets the masks of a model so that a share of its weights is zero. Those that are zero already stay so.
func (p *Magnitude) Apply(m *train.Model, sparsity float64) error {
	type kernel struct {
		name string
		s    []float32
		mask *tensor.Tensor
	}
	if p.Pattern != "" && p.depths == nil {
		var err error
		if p.depths, err = m.ProductDepths(); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	var ks []kernel
	var all []float32
	for _, name := range p.names {
		w, err := m.State().Get(name)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		mask, err := m.State().Get(maskPrefix + name)
		if err != nil {
			return fmt.Errorf("prune: %w", err)
		}
		s := sizes(w, mask)
		if p.score != nil {
			if s, err = p.score(m, name, w, mask); err != nil {
				return err
			}
		}
		if i := slices.IndexFunc(s, func(v float32) bool { return v != v }); i >= 0 {
			return fmt.Errorf("prune: weight %d of %s is not a number: the training has diverged", i, name)
		}
		ks = append(ks, kernel{name, s, mask})
		if p.Global {
			all = append(all, s...)
		}
	}
	var gone []bool
	if p.Global {
		gone = lowest(all, sparsity)
	}
	for _, k := range ks {
		g := gone
		switch n := len(k.s); {
		case p.Global:
			g, gone = gone[:n], gone[n:]
		case p.Pattern != "":
			depth := p.depths[k.name]
			if depth == 0 {
				continue // no product of rows with a matrix
			}
			g = p.Pattern.gone(k.s, depth, n/depth, sparsity)
		default:
			g = lowest(k.s, sparsity)
		}
		for i := range k.s {
			if k.mask.F32()[i] = 1; g[i] {
				k.mask.F32()[i] = 0
			}
		}
		if err := m.State().Set(maskPrefix+k.name, k.mask); err != nil {
			return fmt.Errorf("prune: %w", err)
		}
	}
	return nil
}

// sizes are the weights' magnitudes, below zero where the mask has removed them.
func sizes(w, mask *tensor.Tensor) []float32 {
	out := make([]float32, w.Len())
	for i, v := range w.F32() {
		if out[i] = float32(math.Abs(float64(v))); mask.F32()[i] == 0 {
			out[i] = -1
		}
	}
	return out
}

// lowest marks a share of the values, the least ones; of equal ones the first.
func lowest(x []float32, share float64) []bool {
	out := make([]bool, len(x))
	order := make([]int32, len(x))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(i, j int32) int {
		switch {
		case x[i] < x[j]:
			return -1
		case x[i] > x[j]:
			return 1
		}
		return int(i - j)
	})
	for _, i := range order[:int(math.Round(share*float64(len(x))))] {
		out[i] = true
	}
	return out
}

// Sparsity is the share of zeros among all kernels of a model, of floats or bytes, and by name.
func Sparsity(m *train.Model) (all float64, by map[string]float64, err error) {
	by = map[string]float64{}
	var zero, total float64
	formats, err := m.Formats()
	if err != nil {
		return 0, nil, err
	}
	depths := map[string]int{}
	if len(formats) > 0 {
		if depths, err = m.ProductDepths(); err != nil {
			return 0, nil, err
		}
	}
	for _, p := range m.Params() {
		if f := formats[p.Name]; f.Sparse != "" { // what is not kept is zero
			s := 0.5
			if f.Sparse == nn.SparseBlock {
				s = max(0, 1-float64(f.Kept)/float64(max(1, depths[p.Name])))
			}
			n := float64(p.Type.Shape.Size()) / (1 - s)
			by[p.Name] = s
			zero, total = zero+s*n, total+n
			continue
		}
		bytes := p.Type.DType == dtype.I8 && strings.HasSuffix(p.Name, "kernel")
		if !p.Decay && !bytes {
			continue
		}
		w, err := m.State().Get(p.Name)
		if err != nil {
			return 0, nil, err
		}
		n := 0.0
		if bytes {
			for _, v := range w.Bytes() {
				if v == 0 {
					n++
				}
			}
		} else {
			for _, v := range w.F32() {
				if v == 0 {
					n++
				}
			}
		}
		by[p.Name] = n / float64(max(1, w.Len()))
		zero, total = zero+n, total+float64(w.Len())
	}
	return zero / max(1, total), by, nil
}
