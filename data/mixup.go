package data

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Mixup (Zhang, Cissé, Dauphin & Lopez-Paz, arXiv:1710.09412): in place of example i a training sees λ·example i + (1-λ)·example j, targets too, with λ from Beta(α, α) and j drawn from
// all examples. The paper takes j from the same batch; from the whole data set it does not depend on who else is in the batch, so shares of a batch are the same for any number of ranks.

// Mixed is the spec of examples that mixup has made of those of s: targets that were class numbers are probabilities of all classes. It is an error if such examples cannot be mixed.
func (s Spec) Mixed() (Spec, error) {
	for _, f := range s.Inputs {
		if f.DType != dtype.F32 {
			return Spec{}, fmt.Errorf("data: mixup adds examples up, which needs inputs of f32, but %q is %v%v", f.Name, f.DType, f.Shape)
		}
	}
	if len(s.Targets) != 1 {
		return Spec{}, fmt.Errorf("data: mixup needs examples with one target, these have %d", len(s.Targets))
	}
	switch t := s.Targets[0]; {
	case t.DType == dtype.F32:
	case t.DType == dtype.I32 && s.Classes > 0:
		s.Targets = []Field{{Name: t.Name, DType: dtype.F32, Shape: append(t.Shape.Clone(), s.Classes)}}
	default:
		return Spec{}, fmt.Errorf("data: mixup needs targets that are class numbers or f32, but %q is %v%v of %d classes", t.Name, t.DType, t.Shape, s.Classes)
	}
	return s, nil
}

// mixer makes batches of mixed examples for a Loader.
type mixer struct {
	alpha   float64
	classes int // 0: targets are not class numbers
	own     map[int]Batch
	other   map[int]Batch // by rows; views of the greatest of each
	spec    Spec          // of examples before they are mixed
	partner []int         // of each row, and its share
	share   []float64
}

func newMixer(spec Spec, alpha float64, rows int) (*mixer, error) {
	if !(alpha > 0 && alpha <= 1e6) {
		return nil, fmt.Errorf("data: mixup's alpha must be above 0 and at most 1e6, not %g (0.2 mixes little, 1 evenly)", alpha)
	}
	if _, err := spec.Mixed(); err != nil {
		return nil, err
	}
	m := &mixer{alpha: alpha, spec: spec, own: map[int]Batch{}, other: map[int]Batch{}, partner: make([]int, rows), share: make([]float64, rows)}
	if spec.Targets[0].DType.IsInt() {
		m.classes = spec.Classes
	}
	m.of(m.own, rows, false)
	m.of(m.other, rows, true)
	return m, nil
}

// of is scratch memory for n rows: targets, and inputs where they are asked for.
func (m *mixer) of(have map[int]Batch, n int, inputs bool) Batch {
	b, ok := have[n]
	if ok {
		return b
	}
	if most := len(m.partner); n == most {
		if b.X, b.Y = m.spec.Tensors(n); !inputs {
			b.X = nil
		}
	} else {
		whole := have[most]
		b.X, b.Y = heads(whole.X, n), heads(whole.Y, n)
	}
	have[n] = b
	return b
}

// fillMixed reads the examples idx and as many others, and makes b of them.
func (l *Loader) fillMixed(idx []int, b Batch, epoch int) error {
	m, n := l.mix, len(idx)
	own, other := m.of(m.own, n, false), m.of(m.other, n, true)
	for row, i := range idx {
		l.seed(mixStream, epoch, i)
		m.share[row], m.partner[row] = betaOf(l.rng, m.alpha), l.rng.IntN(l.ds.Len())
	}
	if err := l.ds.Fill(idx, b.X, own.Y); err != nil {
		return err
	}
	l.change(transformStream, epoch, idx, b.X, own.Y)
	if err := l.ds.Fill(m.partner[:n], other.X, other.Y); err != nil {
		return err
	}
	l.change(partnerStream, epoch, idx, other.X, other.Y) // each time it is mixed in, an example is changed otherwise
	for row := range n {
		s := float32(m.share[row])
		for k, x := range b.X {
			mixRow(x, x, other.X[k], row, s)
		}
		to := b.Y[0]
		if m.classes == 0 {
			mixRow(to, own.Y[0], other.Y[0], row, s)
			continue
		}
		if err := m.soften(to, own.Y[0], other.Y[0], row, s); err != nil {
			return fmt.Errorf("examples %d and %d: %w", idx[row], m.partner[row], err)
		}
	}
	return nil
}

// mixRow makes a row of out s·a + (1-s)·b.
func mixRow(out, a, b *tensor.Tensor, row int, s float32) {
	n := shape.Shape(out.Shape()[1:]).Size()
	o, p, q := out.F32()[row*n:(row+1)*n], a.F32()[row*n:], b.F32()[row*n:]
	for i := range o {
		o[i] = s*p[i] + (1-s)*q[i]
	}
}

// soften makes a row of out [rows … classes] the probabilities of two rows of class numbers, of which the first counts s.
func (m *mixer) soften(out, a, b *tensor.Tensor, row int, s float32) error {
	n := shape.Shape(a.Shape()[1:]).Size()
	o := out.F32()[row*n*m.classes : (row+1)*n*m.classes]
	clear(o)
	for i := range n {
		p, q := int(a.I32()[row*n+i]), int(b.I32()[row*n+i])
		if p < 0 || p >= m.classes || q < 0 || q >= m.classes {
			return fmt.Errorf("mixup: classes %d and %d are not both among the %d that there are", p, q, m.classes)
		}
		o[i*m.classes+p] += s
		o[i*m.classes+q] += 1 - s
	}
	return nil
}

// betaOf draws from Beta(a, a), as X/(X+Y) with X and Y from Gamma(a).
func betaOf(r *rand.Rand, a float64) float64 {
	if a == 1 {
		return r.Float64()
	}
	x, y := logGamma(r, a), logGamma(r, a)
	return 1 / (1 + math.Exp(y-x))
}

// logGamma draws the logarithm of a number from Gamma(a): by Marsaglia and Tsang's method ("A simple method for generating gamma variables", 2000), for a < 1 from that for a+1 times U^(1/a), which may be too
// small for a float64 itself.
func logGamma(r *rand.Rand, a float64) float64 {
	small := 0.0
	if a < 1 {
		small = math.Log(1-r.Float64()) / a
		a++
	}
	d := a - 1.0/3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := 1 + c*x
		if v <= 0 {
			continue
		}
		v *= v * v
		if math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return small + math.Log(d*v)
		}
	}
}
