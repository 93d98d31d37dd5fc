package quant

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// Method is a way to choose weights of few bits.
type Method string

// The methods. All but RTN look at examples.
const (
	RTN  Method = "rtn"  // each to the nearest
	GPTQ Method = "gptq" // one input after another; those to come make up for the errors so far, as the inputs' second moments say (arXiv:2210.17323)
	AWQ  Method = "awq"  // inputs that are great on average get weights that are rounded more finely, by a power of their size that is searched for (arXiv:2306.00978)
)

// Methods lists them.
var Methods = []Method{RTN, GPTQ, AWQ}

// WeightOptions say how matrices of weights are brought to few bits.
type WeightOptions struct {
	Bits     int      // 8 or 4
	Group    int      // weights that share a scale, a multiple of 8; 0: of 8 bits all of an output, of 4 bits 64
	Method   Method   // "": RTN
	Smooth   float64  // the exponent α of SmoothQuant (arXiv:2211.10438), 0.5 is usual: inputs with outliers are made smaller and their weights greater; 0: not. With RTN and GPTQ
	Examples int      // how many are looked at; 0: 128
	Keep     []string // patterns of the names of parameters or layers that stay floats (train.Matches)
}

func (o *WeightOptions) check() error {
	if o.Method == "" {
		o.Method = RTN
	}
	if o.Group == 0 && o.Bits == 4 {
		o.Group = 64
	}
	if o.Examples == 0 {
		o.Examples = 128
	}
	switch {
	case o.Bits != 8 && o.Bits != 4:
		return fmt.Errorf("quant: weights of %d bits; 8 and 4 are supported", o.Bits)
	case o.Group < 0 || o.Group%8 != 0:
		return fmt.Errorf("quant: a group of %d weights must be a multiple of 8", o.Group)
	case !slices.Contains(Methods, o.Method):
		return fmt.Errorf("quant: unknown method %q (known: rtn, gptq, awq)", o.Method)
	case !(o.Smooth >= 0 && o.Smooth <= 1):
		return fmt.Errorf("quant: smooth %g must be from 0 to 1", o.Smooth)
	case o.Smooth > 0 && o.Method == AWQ:
		return errors.New("quant: awq chooses factors of its own; smooth goes with rtn and gptq")
	case o.Examples < 1:
		return fmt.Errorf("quant: %d examples; at least 1", o.Examples)
	}
	return nil
}

// looks reports whether examples are needed.
func (o *WeightOptions) looks() bool { return o.Method != RTN || o.Smooth > 0 }

// matrix is a matrix of weights on its way: rows by output.
type matrix struct {
	name    string
	n, k    int
	w       []float64 // [n, k]
	product bool      // a kernel [k, n] of a product whose operand is seen, not a table or a recurrent kernel
	moments *moments
}

// moments are what examples say about the operand of products: operands that several kernels share are looked at once.
type moments struct {
	rows float64
	h    []float64 // [k, k]: Σ xᵀx
	top  []float64 // [k]: greatest magnitudes
}

// Weights brings the matrices of a model (kernels of Dense and attention, recurrent kernels, tables of embeddings) to 8 or 4 bits; convolutions, biases and normalisations stay floats. In products the other
// operand is brought to 8 bits at run time, each row and group with its own scale, so nothing has to be measured beforehand, and examples may be nil with RTN and without Smooth. The result is a model like
// any other and gives the same bits on every instruction set in these products.
func Weights(ctx context.Context, m *train.Model, examples data.Dataset, o WeightOptions) (*train.Model, *Report, error) {
	if err := o.check(); err != nil {
		return nil, nil, err
	}
	if err := finite(m); err != nil {
		return nil, nil, err
	}
	r := &Report{}
	ms, err := matrices(m, o)
	if err != nil {
		return nil, nil, err
	}
	if o.looks() {
		if examples == nil || examples.Len() == 0 {
			return nil, nil, fmt.Errorf("quant: %s needs examples to look at; rtn without smooth does not", o.Method)
		}
		r.Examples = min(o.Examples, examples.Len())
		if err := look(ctx, m, data.Take(examples, o.Examples), ms); err != nil {
			return nil, nil, err
		}
		for _, x := range ms {
			if x.moments != nil && x.moments.rows < float64(x.k) {
				r.Warnings = append(r.Warnings, fmt.Sprintf("%s has %d inputs, but only %.0f rows were looked at: take more examples", x.name, x.k, x.moments.rows))
			}
		}
	}
	formats, values := map[string]nn.Format{}, map[string]*tensor.Tensor{}
	for _, x := range ms {
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
		f := nn.Format{Bits: o.Bits, Group: o.Group}
		if f.Group >= x.k {
			f.Group = 0
		}
		line := Layer{Name: x.name, Bits: o.Bits, Before: 4 * len(x.w)}
		q := x.quantize(o, &f)
		line.NoiseRatio = q.decibels
		line.After = len(q.weights.Bytes()) + len(q.scale.Bytes())
		formats[x.name] = f
		values[x.name], values[x.name+"_scale"] = q.weights, q.scale
		if f.Factors {
			values[x.name+"_factor"] = q.factor
			line.After += len(q.factor.Bytes())
		}
		r.Layers = append(r.Layers, line)
	}
	for _, p := range m.Params() {
		if _, ok := formats[p.Name]; ok {
			continue
		}
		why := "no matrix"
		if matchesAny(o.Keep, p.Name) {
			why = "kept"
		}
		r.Layers = append(r.Layers, Layer{Name: p.Name, Why: why, Before: p.Type.Bytes(), After: p.Type.Bytes()})
		if values[p.Name], err = m.State().Get(p.Name); err != nil {
			return nil, nil, err
		}
	}
	net, err := m.Net.WithFormats(formats)
	if err != nil {
		return nil, nil, err
	}
	q, err := replace(m, net, values)
	return q, r, err
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return train.Matches(p, name) })
}

// replace compiles net in the place of m's, with values for its parameters.
func replace(m *train.Model, net *nn.Model, values map[string]*tensor.Tensor) (*train.Model, error) {
	q, err := m.With(net)
	if err != nil {
		return nil, err
	}
	for _, p := range q.Params() {
		if values[p.Name] == nil {
			return nil, fmt.Errorf("quant: parameter %s has no value", p.Name) // a bug
		}
		if err := q.State().Set(p.Name, values[p.Name]); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// matrices finds the matrices of a model.
func matrices(m *train.Model, o WeightOptions) ([]*matrix, error) {
	depth, err := m.ProductDepths()
	if err != nil {
		return nil, err
	}
	tables := map[string]bool{}
	for _, l := range m.Net.Layers() {
		if l.Class() == "Embedding" {
			tables[l.Name()+"/embeddings"] = true
		}
	}
	var names []string
	for _, p := range m.Params() {
		names = append(names, p.Name)
	}
	if err := train.Unmatched("parameter", o.Keep, names); err != nil {
		return nil, fmt.Errorf("quant: keep: %w", err)
	}
	var out []*matrix
	some, few := false, ""
	for _, p := range m.Params() {
		if strings.HasSuffix(p.Name, "kernel") && p.Type.DType.IsInt() {
			few = p.Name
		}
		k, product := depth[p.Name]
		table := tables[p.Name]
		recurrent := len(p.Type.Shape) == 2 && last(p.Name) == "recurrent_kernel"
		if !product && !table && !recurrent || p.Type.DType != dtype.F32 || p.Type.Shape.Size() == 0 {
			continue
		}
		if some = true; matchesAny(o.Keep, p.Name) {
			continue
		}
		t, err := m.State().Get(p.Name)
		if err != nil {
			return nil, err
		}
		x := &matrix{name: p.Name, product: product, w: make([]float64, t.Len())}
		switch {
		case table:
			x.k = p.Type.Shape[1]
		case recurrent:
			x.k = p.Type.Shape[0]
		default:
			x.k = k
		}
		x.n = t.Len() / x.k
		for i, v := range t.F32() {
			if table {
				x.w[i] = float64(v)
			} else {
				x.w[i%x.n*x.k+i/x.n] = float64(v)
			}
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		if some {
			return nil, errors.New("quant: all matrices of weights are kept; nothing is left to quantize")
		}
		if few != "" {
			return nil, fmt.Errorf("quant: weights are of few bits already (%s); give the model of floats that this one was made of", few)
		}
		return nil, errors.New("quant: the model has no matrix of weights (Dense, attention, recurrent layers, Embedding) that could be brought to few bits; for convolutions there is static quantization")
	}
	return out, nil
}

func last(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '/' {
			return name[i+1:]
		}
	}
	return name
}

// look gathers the moments of the operands of all products.
func look(ctx context.Context, m *train.Model, ds data.Dataset, ms []*matrix) error {
	loader, err := data.NewLoader(ds, data.LoaderConfig{Batch: 16, Epochs: 1})
	if err != nil {
		return err
	}
	defer loader.Close()
	by := map[string]*matrix{}
	for _, x := range ms {
		if x.product {
			by[x.name] = x
		}
	}
	seen := map[string]*moments{} // by the operand's first kernel
	for {
		b, err := loader.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		stats, err := m.ProductMoments(b.X...)
		if err != nil {
			return err
		}
		for name, s := range stats {
			x := by[name]
			if x == nil {
				continue
			}
			mo := seen[s.Shared]
			if mo == nil {
				mo = &moments{h: make([]float64, x.k*x.k), top: make([]float64, x.k)}
				seen[s.Shared] = mo
			}
			x.moments = mo
			if name != s.Shared && by[s.Shared] != nil {
				continue
			}
			mo.rows += float64(s.Rows)
			for i, v := range s.Second.F32() {
				if v-v != 0 {
					return fmt.Errorf("quant: the input of %s is not finite for some example: the model has diverged", name)
				}
				mo.h[i] += float64(v)
			}
			for i, v := range s.Top.F32() {
				mo.top[i] = max(mo.top[i], float64(v))
			}
		}
	}
}

// quantized is a matrix in few bits.
type quantized struct {
	weights, scale, factor *tensor.Tensor
	decibels               float64 // the power of the weights over that of their errors
}

// quantize chooses the weights.
func (x *matrix) quantize(o WeightOptions, f *nn.Format) quantized {
	var out quantized
	factor := x.factors(o)
	w, h := x.w, []float64(nil)
	if x.moments != nil {
		h = x.moments.h
	}
	if factor != nil {
		f.Factors = true
		w, h = scaled(x.w, factor, x.n, x.k), scaledMoments(h, factor, x.k)
		out.factor = tensor.New(dtype.F32, x.k)
		for i, v := range factor {
			out.factor.Set(i, v)
		}
	}
	g := grid{bits: f.Bits, group: f.Group, k: x.k}
	if g.group == 0 {
		g.group = x.k
	}
	var u []float64
	if o.Method == GPTQ && h != nil {
		u = inverseRoot(h, x.k)
	}
	var weight []float64 // of errors in the search for scales
	if h != nil {
		weight = make([]float64, x.k)
		for i := range weight {
			weight[i] = h[i*x.k+i]
		}
	}
	codes, scales := make([]int8, x.n*x.k), make([]float32, x.n*g.groups())
	pool := par.New(0)
	defer pool.Close()
	pool.Run(x.n, par.Func(func(i, _ int) {
		row := slices.Clone(w[i*x.k:][:x.k])
		g.row(row, codes[i*x.k:][:x.k], scales[i*g.groups():][:g.groups()], weight, u)
	}))
	var signal, noise float64
	for i, c := range codes {
		v := float64(c) * float64(scales[i/x.k*g.groups()+i%x.k/g.group])
		signal, noise = signal+w[i]*w[i], noise+(w[i]-v)*(w[i]-v)
	}
	out.decibels = 10 * math.Log10(max(signal, 1e-300)/max(noise, 1e-300))
	out.weights, out.scale = g.store(codes, x.n), tensor.Of(scales, x.n, g.groups())
	return out
}

// grid is how numbers become codes: from -127 to 127, or from -8 to 7, times a scale for each group, which may be negative.
type grid struct{ bits, group, k int }

func (g grid) groups() int { return (g.k + g.group - 1) / g.group }

func (g grid) limits() (lo, hi float64) {
	if g.bits == 8 {
		return -127, 127
	}
	return -8, 7
}

func (g grid) code(v, scale float64) float64 {
	lo, hi := g.limits()
	return min(hi, max(lo, math.RoundToEven(v/scale)))
}

// row quantizes a row, which it changes. With u (inverseRoot) the errors are made up for by the weights to come.
func (g grid) row(w []float64, codes []int8, scales []float32, weight, u []float64) {
	for k := range w {
		if k%g.group == 0 {
			hi := min(k+g.group, g.k)
			var in []float64
			if weight != nil {
				in = weight[k:hi]
			}
			scales[k/g.group] = float32(g.scale(w[k:hi], in))
		}
		s := float64(scales[k/g.group])
		c := g.code(w[k], s)
		codes[k] = int8(c)
		if u == nil {
			continue
		}
		e := (w[k] - c*s) / u[k*g.k+k]
		for j := k + 1; j < g.k; j++ {
			w[j] -= e * u[k*g.k+j]
		}
	}
}

// scale is that of a group: the one of least error, weighted, among some that put its greatest weight at the end of the range or a little beyond.
func (g grid) scale(w, weight []float64) float64 {
	top := 0.0
	for _, v := range w {
		if math.Abs(v) > math.Abs(top) {
			top = v
		}
	}
	if math.Abs(top) < 1e-30 { // all zero
		return 1
	}
	if g.bits == 8 {
		return math.Abs(top) / 127
	}
	best, least := 0.0, math.Inf(1)
	for _, end := range []float64{-8, 7} {
		for shrink := 1.0; shrink > 0.72; shrink -= 0.04 {
			s, sum := top/end*shrink, 0.0
			s = float64(float32(s))
			for i, v := range w {
				d := v - g.code(v, s)*s
				if d *= d; weight != nil {
					d *= weight[i]
				}
				sum += d
			}
			if sum < least {
				best, least = s, sum
			}
		}
	}
	return best
}

// store makes the tensor of codes [n, k].
func (g grid) store(codes []int8, n int) *tensor.Tensor {
	if g.bits == 8 {
		return tensor.Of(codes, n, g.k)
	}
	row := (g.k + 1) / 2
	t := tensor.New(dtype.U8, n, row)
	b := t.Bytes()
	for i := range b {
		b[i] = 0x88 // zeros, also behind an odd end
	}
	for i, c := range codes {
		at, k := i/g.k*row, i%g.k
		v := uint8(c + 8)
		if k%2 == 0 {
			b[at+k/2] = b[at+k/2]&0xf0 | v
		} else {
			b[at+k/2] = b[at+k/2]&0x0f | v<<4
		}
	}
	return t
}
