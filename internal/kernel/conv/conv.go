package conv

import (
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

// Act is what Forward does to its finished elements; the values are those of package gemm.
type Act = gemm.Act

// The activations.
const (
	None = gemm.None
	ReLU = gemm.ReLU // max(0, y); a NaN stays a NaN
)

// Epilogue is what Forward does to each element of y before it stores it.
type Epilogue struct {
	Bias bool // add bias[channel]
	Act  Act  // after the bias
}

// Spec is a convolution (correlation, as in every deep-learning library) of images x [N,H,W,Cin] with filters
// w [KH,KW,Cin/Groups,Cout], giving y [N,OH,OW,Cout]:
//
//	y[n,oy,ox,o] = act(bias[o] + Σ x[n, oy·StrideH−PadTop+ky·DilH, ox·StrideW−PadLeft+kx·DilW, c] · w[ky,kx,c mod (Cin/Groups),o])
//
// over the taps ky, kx that meet a pixel of x and over the channels c of o's group. A convolution over one axis has
// H = KH = 1. Strides, dilations and groups of 0 mean 1.
type Spec struct {
	N, H, W, Cin                         int
	Cout, KH, KW                         int
	StrideH, StrideW                     int
	PadTop, PadBottom, PadLeft, PadRight int
	DilH, DilW                           int
	Groups                               int
	Epilogue                             Epilogue
}

// normal fills in the defaults and panics on a Spec that describes no convolution: shapes were checked when the graph was built.
func (s Spec) normal() Spec {
	for _, p := range []*int{&s.StrideH, &s.StrideW, &s.DilH, &s.DilW, &s.Groups} {
		if *p == 0 {
			*p = 1
		}
	}
	switch {
	case s.N < 0 || s.H < 1 || s.W < 1 || s.Cin < 1 || s.Cout < 1 || s.KH < 1 || s.KW < 1:
		panic("conv: New: sizes must be positive")
	case s.StrideH < 1 || s.StrideW < 1 || s.DilH < 1 || s.DilW < 1:
		panic("conv: New: stride and dilation must be positive")
	case min(s.PadTop, s.PadBottom, s.PadLeft, s.PadRight) < 0:
		panic("conv: New: negative padding")
	case s.Groups < 1 || s.Cin%s.Groups != 0 || s.Cout%s.Groups != 0:
		panic("conv: New: channels are not a multiple of the groups")
	case s.OH() < 1 || s.OW() < 1:
		panic("conv: New: the filter does not fit on the image")
	}
	return s
}

// OH is the height of y.
func (s Spec) OH() int { return outSize(s.H, s.KH, s.StrideH, s.PadTop+s.PadBottom, s.DilH) }

// OW is the width of y.
func (s Spec) OW() int { return outSize(s.W, s.KW, s.StrideW, s.PadLeft+s.PadRight, s.DilW) }

func outSize(n, k, stride, pad, dil int) int {
	stride, dil = max(stride, 1), max(dil, 1)
	if n += pad - (k-1)*dil - 1; n < 0 {
		return 0
	}
	return n/stride + 1
}

// SizeX, SizeW and SizeY are the numbers of elements of x, w and y.
func (s Spec) SizeX() int { return s.N * s.H * s.W * s.Cin }

// SizeW is the number of elements of w.
func (s Spec) SizeW() int { return s.KH * s.KW * s.Cin / max(s.Groups, 1) * s.Cout }

// SizeY is the number of elements of y.
func (s Spec) SizeY() int { return s.N * s.OH() * s.OW() * s.Cout }

// FLOPs is the arithmetic that one of the three products asks for: a multiply and an add for each tap on each output,
// taps on padding included.
func (s Spec) FLOPs() int64 { return 2 * int64(s.SizeY()) * int64(s.KH*s.KW*s.Cin/max(s.Groups, 1)) }

// depthwise reports whether each channel has a filter of its own.
func (s Spec) depthwise() bool { return s.Groups == s.Cin && s.Cout == s.Cin && s.Cin > 1 }

// Plan computes one convolution and its two gradients. It holds scratch memory: one call at a time. What a direction needs
// is allocated by the first call of that direction with a pool of that many threads; later calls allocate nothing.
// A plan is for the instruction set that was in use when it was made.
type Plan struct {
	spec Spec
	fwd  product // of Forward
	bwd  product // of BackwardInput
	filt filterGrad
}

// product is one way to compute y from x and w, or dx from dy and w.
type product interface {
	// setFilter reads w and keeps what run needs of it.
	setFilter(pool *par.Pool, w []float32)
	// run computes out from in and the filter last set; bias is nil where there is none.
	run(pool *par.Pool, in, bias, out []float32)
	// flops is the number of multiplies and adds that run and setFilter execute.
	flops() int64
	// name says which algorithm this is.
	name() string
}

// filterGrad is one way to compute dw from x and dy.
type filterGrad interface {
	run(pool *par.Pool, x, dy, dw []float32)
	flops() int64
	name() string
}

// keeper is a product that prepares filters in another way if they stay for many runs. Results are the same.
type keeper interface {
	keepFilter(pool *par.Pool, w []float32)
}

// borrower is an algorithm whose memory is of use to others between runs.
type borrower interface {
	words(threads int) int
	lend(scratch *[]uint32)
}

// New makes the plan of s. It panics on a Spec that describes no convolution.
func New(s Spec) *Plan { return &Plan{spec: s.normal()} }

// Spec is what the plan was made for, defaults filled in.
func (p *Plan) Spec() Spec { return p.spec }

// SetFilter prepares the filters w [KH,KW,Cin/Groups,Cout] for Forward calls whose w is nil: what a model does once whose
// weights stay the same for many calls. w must stay unchanged until then, since small filters are used in place.
func (p *Plan) SetFilter(pool *par.Pool, w []float32) {
	checkLen(len(w), p.spec.SizeW(), "conv: SetFilter: length of w")
	if f, ok := p.forward().(keeper); ok {
		f.keepFilter(pool, w)
		return
	}
	p.forward().setFilter(pool, w)
}

// Forward computes y [N,OH,OW,Cout] from x [N,H,W,Cin], w [KH,KW,Cin/Groups,Cout] (nil: as SetFilter left it) and, if
// Epilogue.Bias, bias [Cout].
func (p *Plan) Forward(pool *par.Pool, x, w, bias, y []float32) {
	s := &p.spec
	checkLen(len(x), s.SizeX(), "conv: Forward: length of x")
	checkLen(len(y), s.SizeY(), "conv: Forward: length of y")
	if s.Epilogue.Bias {
		checkLen(len(bias), s.Cout, "conv: Forward: length of bias")
	} else {
		bias = nil
	}
	f := p.forward()
	if w != nil {
		checkLen(len(w), s.SizeW(), "conv: Forward: length of w")
		f.setFilter(pool, w)
	}
	f.run(pool, x, bias, y)
}

// BackwardInput computes dx [N,H,W,Cin], the gradient for x, from w [KH,KW,Cin/Groups,Cout] and dy [N,OH,OW,Cout]. It is
// also the transposed convolution. The epilogue plays no part in it.
func (p *Plan) BackwardInput(pool *par.Pool, w, dy, dx []float32) {
	s := &p.spec
	checkLen(len(w), s.SizeW(), "conv: BackwardInput: length of w")
	checkLen(len(dy), s.SizeY(), "conv: BackwardInput: length of dy")
	checkLen(len(dx), s.SizeX(), "conv: BackwardInput: length of dx")
	b := p.backward()
	b.setFilter(pool, w)
	b.run(pool, dy, nil, dx)
}

// BackwardFilter computes dw [KH,KW,Cin/Groups,Cout], the gradient for w, from x [N,H,W,Cin] and dy [N,OH,OW,Cout]. The
// epilogue plays no part in it.
func (p *Plan) BackwardFilter(pool *par.Pool, x, dy, dw []float32) {
	s := &p.spec
	checkLen(len(x), s.SizeX(), "conv: BackwardFilter: length of x")
	checkLen(len(dy), s.SizeY(), "conv: BackwardFilter: length of dy")
	checkLen(len(dw), s.SizeW(), "conv: BackwardFilter: length of dw")
	p.filter().run(pool, x, dy, dw)
}

func checkLen(got, want int, what string) {
	if got != want {
		panic(what)
	}
}

// Direction is one of the three products of a convolution.
type Direction int

// The directions.
const (
	Forward Direction = iota
	BackwardInput
	BackwardFilter
)

// algorithm is what the plan uses in direction d.
func (p *Plan) algorithm(d Direction) interface {
	name() string
	flops() int64
} {
	switch d {
	case Forward:
		return p.forward()
	case BackwardInput:
		return p.backward()
	}
	return p.filter()
}

// Algorithm names the algorithm that the plan uses in direction d, and Executed the multiplies and adds that it executes,
// which Winograd's algorithm makes fewer, and skipped padding too, than Spec.FLOPs, and AMX six times as many (package tgemm).
func (p *Plan) Algorithm(d Direction) string { return p.algorithm(d).name() }

// Executed is the number of multiplies and adds that the plan executes in direction d; see Algorithm.
func (p *Plan) Executed(d Direction) int64 { return p.algorithm(d).flops() }

// BF16 is how many of the Executed multiply bf16, not float32: all on AMX, else none.
func (p *Plan) BF16(d Direction) int64 {
	switch a := p.algorithm(d); a.(type) {
	case *tileProduct, *tileFilter:
		return a.flops()
	}
	return 0
}

// Scratch is the number of words of memory that direction d needs in a run with so many threads and that plans which run one
// after another can share (Lend).
func (p *Plan) Scratch(d Direction, threads int) int {
	if b, ok := p.algorithm(d).(borrower); ok {
		return b.words(threads)
	}
	return 0
}

// Lend makes direction d use *scratch, whose contents do not matter, for the memory that Scratch counts; else, or if there is
// too little of it, the plan allocates its own. It may be allocated later than lent, but before the first run.
func (p *Plan) Lend(d Direction, scratch *[]uint32) {
	if b, ok := p.algorithm(d).(borrower); ok {
		b.lend(scratch)
	}
}

func (p *Plan) forward() product {
	if p.fwd == nil {
		p.fwd = p.spec.chooseForward()
	}
	return p.fwd
}

func (p *Plan) backward() product {
	if p.bwd == nil {
		p.bwd = p.spec.chooseBackward()
	}
	return p.bwd
}

func (p *Plan) filter() filterGrad {
	if p.filt == nil {
		p.filt = p.spec.chooseFilter()
	}
	return p.filt
}
