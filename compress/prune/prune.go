// Package prune removes weights.
//
// Magnitude sets the smallest weights to zero while the model trains (Han et al., arXiv:1506.02626), more and more of them along the cubic schedule of Zhu & Gupta
// (arXiv:1710.01878), so that the others can take over. Zeros make a file smaller once it is compressed; they do not make Joule's kernels faster.
package prune

import (
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Magnitude prunes kernels by the size of their weights. Pass it to Compile with train.Wrapped and to Fit as a callback; Model.Merge makes the zeros permanent.
type Magnitude struct {
	train.Hooks
	Sparsity    float64  // share of the weights that are zero in the end, in (0, 1)
	Global      bool     // the smallest of all kernels together, not of each
	Start, Stop float64  // shares of the training between which weights go; 0 and 0: from the start to one half
	Every       int64    // steps between two removals; 0: 50
	Skip        []string // patterns of names that are left alone (train.Matches)

	names []string
}

const maskPrefix = "mask/"

// Check says what is wrong with the settings.
func (p *Magnitude) Check() error {
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

func (p *Magnitude) on(param nn.Param) bool {
	return param.Decay && !slices.ContainsFunc(p.Skip, func(s string) bool { return train.Matches(s, param.Name) })
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
		name    string
		w, mask *tensor.Tensor
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
		ks = append(ks, kernel{name, w, mask})
		if p.Global {
			all = append(all, sizes(w, mask)...)
		}
	}
	limit := threshold(all, sparsity)
	for _, k := range ks {
		s := sizes(k.w, k.mask)
		l := limit
		if !p.Global {
			l = threshold(slices.Clone(s), sparsity)
		}
		for i, v := range s {
			if v <= l {
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

// threshold is the size up to which weights go so that a share of them is gone. It sorts x.
func threshold(x []float32, share float64) float32 {
	n := int(math.Round(share * float64(len(x))))
	if n == 0 {
		return -1
	}
	slices.Sort(x)
	return x[n-1]
}

// Sparsity is the share of zeros among all kernels of a model, and by name.
func Sparsity(m *train.Model) (all float64, by map[string]float64, err error) {
	by = map[string]float64{}
	var zero, total float64
	for _, p := range m.Params() {
		if !p.Decay {
			continue
		}
		w, err := m.State().Get(p.Name)
		if err != nil {
			return 0, nil, err
		}
		n := 0.0
		for _, v := range w.F32() {
			if v == 0 {
				n++
			}
		}
		by[p.Name] = n / float64(max(1, w.Len()))
		zero, total = zero+n, total+float64(w.Len())
	}
	return zero / max(1, total), by, nil
}
