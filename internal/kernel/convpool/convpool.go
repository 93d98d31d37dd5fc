// Package convpool computes a 3×3 convolution, its bias, a rectifier and a 2×2 max pooling in one go, and their gradients.
//
// Terminology. A window is the 2×2 pixels of the convolution's result that one pooled pixel comes from; its pixels are numbered
// 0 to 3 row by row. A position says which pixel of a window was the greatest (the first of equals), or 4 (Dead) where none
// was above zero, so that no gradient passes. A line is the windows of one row of a pooled image.
//
// Why it is a package of its own: what lies between the convolution and the pooled result never reaches memory, pixels that
// no window reads are not computed, and behind a maximum and a rectifier at most one pixel in four has a gradient.
//
//   - Forward, few input channels: the direct sum, the four pixels of a window and two vectors of channels in registers.
//   - Forward, more channels: Winograd's F(2×2, 3×3), whose tile is exactly one window: 16 multiplies instead of 36.
//   - Gradient of the filters, many input channels: for each output channel a list of the pixels with a gradient; the
//     3·3·Cin sums of a channel stay in registers while its list is walked.
//   - Gradient of the filters, few input channels: a vector of output channels; each picks the pixel of its own window from
//     registers by a permutation.
//   - Gradient of the images: for each pixel of the convolution's result a list of the channels that have a gradient there.
//
// Error, with u = 2⁻²⁴. The direct sum of k products is off by at most k·u times the sum of their magnitudes. Winograd's transforms
// of the images and the results take two and four additions an element, those of the filters six operations, and a point is a
// dot product over Cin, so a result is off by at most (Cin+12)·u times what the same formulas give with the magnitudes of all
// their numbers (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3); the tests hold both to their bound. On
// normally distributed data that is an error of about 4·10⁻⁷ of the results, two to three times that of the direct sum. Pixels that
// are equal may come out of Winograd's sums a rounding apart, and a NaN spreads over the windows whose patches hold it.
//
// All results are the same bits for any number of threads.
package convpool

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel/gemm"
	"github.com/jouleml/joule/internal/par"
)

//go:generate sh -c "cd _asm && go run ."

// Dead is the position of a window none of whose pixels is above zero.
const Dead = 4

// Spec is a convolution of images x [N,H,W,Cin] with filters w [KH,KW,Cin,Cout] at stride 1 without padding, and what follows:
//
//	y = maxpool2x2(relu(conv(x, w) + b)), [N,PH,PW,Cout]
//
// The pooling has stride 2 and drops an odd last row or column.
type Spec struct {
	N, H, W, Cin int
	Cout, KH, KW int
}

// PH is the height of y.
func (s Spec) PH() int { return (s.H - s.KH + 1) / 2 }

// PW is the width of y.
func (s Spec) PW() int { return (s.W - s.KW + 1) / 2 }

// SizeX, SizeW and SizeY are the numbers of elements of x, w and y (which has as many positions).
func (s Spec) SizeX() int { return s.N * s.H * s.W * s.Cin }

// SizeW is the number of elements of w.
func (s Spec) SizeW() int { return s.KH * s.KW * s.Cin * s.Cout }

// SizeY is the number of elements of y and of the positions.
func (s Spec) SizeY() int { return s.N * s.PH() * s.PW() * s.Cout }

// FLOPs is the arithmetic that the direct convolution asks for on the pixels that the pooling reads: the measure of Forward and,
// if every pixel had a gradient, of either gradient.
func (s Spec) FLOPs() int64 { return 8 * int64(s.SizeY()) * int64(s.KH*s.KW*s.Cin) }

// valid says that New takes s.
func (s Spec) valid() bool {
	const most = math.MaxInt32 / 4
	return s.KH == 3 && s.KW == 3 && s.N >= 1 && s.H >= 4 && s.W >= 4 && s.Cin >= 1 && s.Cout >= 1 &&
		s.H*s.W <= most/s.Cin && 9*s.Cin <= most/s.Cout
}

// Supported reports whether a plan for s is faster than the convolution and the pooling by themselves: 3×3 filters, at least 16
// output channels, and input channels that are few (an image's) or a multiple of 16. New takes any 3×3 filters.
func Supported(s Spec) bool {
	return s.valid() && s.Cout >= 16 && (s.Cin <= 4 || s.Cin%16 == 0)
}

// Plan holds the decisions for one Spec, tables and scratch memory: one call at a time. What a direction needs is allocated by
// its first call with a pool of that many threads; later calls allocate nothing. A plan is for the instruction set that was in
// use when it was made.
type Plan struct {
	spec   Spec
	ph, pw int
	level  isa.Level

	fwd  forward
	filt filterGrad
	in   inputGrad
}

// New makes the plan of s. It panics if s is no such convolution or its filters are not 3×3.
func New(s Spec) *Plan {
	if !s.valid() {
		panic("convpool: New: sizes out of range or filters other than 3×3")
	}
	return &Plan{spec: s, ph: s.PH(), pw: s.PW(), level: isa.Current()}
}

// Spec is what the plan was made for.
func (p *Plan) Spec() Spec { return p.spec }

// SetFilter prepares the filters w [3,3,Cin,Cout] for Forward calls whose w is nil: what a model does once whose weights stay
// the same for many calls.
func (p *Plan) SetFilter(pool *par.Pool, w []float32) {
	checkLen(len(w), p.spec.SizeW(), "convpool: SetFilter: length of w")
	p.forward().setFilter(pool, w)
}

// Forward computes y [N,PH,PW,Cout] and, if idx is not nil, the positions idx [N,PH,PW,Cout] from x [N,H,W,Cin], w [3,3,Cin,Cout]
// (nil: as SetFilter left it) and b [Cout]. The pixels of a window are compared before the bias is added.
func (p *Plan) Forward(pool *par.Pool, x, w, b, y []float32, idx []uint8) {
	s := &p.spec
	checkLen(len(x), s.SizeX(), "convpool: Forward: length of x")
	checkLen(len(b), s.Cout, "convpool: Forward: length of b")
	checkLen(len(y), s.SizeY(), "convpool: Forward: length of y")
	if idx != nil {
		checkLen(len(idx), s.SizeY(), "convpool: Forward: length of idx")
	}
	f := p.forward()
	if w != nil {
		checkLen(len(w), s.SizeW(), "convpool: Forward: length of w")
		f.setFilter(pool, w)
	}
	f.run(pool, x, b, y, idx)
}

// BackwardFilter computes the gradients dw [3,3,Cin,Cout] and db [Cout] from x [N,H,W,Cin], the positions idx that Forward gave and
// the gradient dy [N,PH,PW,Cout] of its result.
func (p *Plan) BackwardFilter(pool *par.Pool, x []float32, idx []uint8, dy, dw, db []float32) {
	s := &p.spec
	checkLen(len(x), s.SizeX(), "convpool: BackwardFilter: length of x")
	checkLen(len(idx), s.SizeY(), "convpool: BackwardFilter: length of idx")
	checkLen(len(dy), s.SizeY(), "convpool: BackwardFilter: length of dy")
	checkLen(len(dw), s.SizeW(), "convpool: BackwardFilter: length of dw")
	checkLen(len(db), s.Cout, "convpool: BackwardFilter: length of db")
	if p.filt == nil {
		p.filt = newFilterGrad(p)
	}
	p.filt.run(pool, x, idx, dy, dw, db)
}

// BackwardInput computes the gradient dx [N,H,W,Cin] from w [3,3,Cin,Cout], the positions idx and the gradient dy [N,PH,PW,Cout].
func (p *Plan) BackwardInput(pool *par.Pool, w []float32, idx []uint8, dy, dx []float32) {
	s := &p.spec
	checkLen(len(w), s.SizeW(), "convpool: BackwardInput: length of w")
	checkLen(len(idx), s.SizeY(), "convpool: BackwardInput: length of idx")
	checkLen(len(dy), s.SizeY(), "convpool: BackwardInput: length of dy")
	checkLen(len(dx), s.SizeX(), "convpool: BackwardInput: length of dx")
	if p.in.plan == nil {
		p.in.init(p)
	}
	p.in.run(pool, w, idx, dy, dx)
}

// Algorithm names how Forward and BackwardFilter are computed.
func (p *Plan) Algorithm() (forward, filter string) {
	forward, filter = "direct", "lanes"
	if p.useWinograd() {
		forward = "winograd"
	}
	if p.useLists() {
		filter = "lists"
	}
	return forward, filter
}

// Executed is the arithmetic that Forward and either gradient execute. Of the four pixels of a window the gradients visit the greatest alone. A transform of a
// window takes 32 additions a channel, 24 back; one of a filter 28 operations.
func (p *Plan) Executed() (forward, gradient int64) {
	windows, pairs := int64(p.spec.N*p.ph*p.pw), int64(p.spec.Cin*p.spec.Cout)
	forward, gradient = 2*9*4*windows*pairs, 2*9*windows*pairs
	if p.useWinograd() {
		forward = 2*pointsN*windows*pairs + windows*int64(32*p.spec.Cin+24*p.spec.Cout) + 28*pairs
	}
	return forward, gradient
}

func checkLen(got, want int, what string) {
	if got != want {
		panic(what)
	}
}

// forward is one way to compute y.
type forward interface {
	setFilter(pool *par.Pool, w []float32)
	run(pool *par.Pool, x, b, y []float32, idx []uint8)
}

// filterGrad is one way to compute dw and db.
type filterGrad interface {
	run(pool *par.Pool, x []float32, idx []uint8, dy, dw, db []float32)
}

func (p *Plan) forward() forward {
	if p.fwd == nil {
		if p.useWinograd() {
			p.fwd = newWinograd(p)
		} else {
			p.fwd = newDirect(p)
		}
	}
	return p.fwd
}

// useWinograd: its transforms take whole vectors, and pay for themselves from about 16 input channels on.
func (p *Plan) useWinograd() bool {
	return p.spec.Cin >= 16 && p.spec.Cin%8 == 0 && p.spec.Cout%8 == 0
}

// useLists: strips of 3·Cin floats must be whole strips of the kernels.
func (p *Plan) useLists() bool { return p.spec.Cin%16 == 0 }

// skew is added to powers of two, so that what is read together does not meet in one set of the caches.
const skew = 16

// panelWidth is how many columns of the transformed filters one product takes.
func panelWidth() int { return gemm.NR() }
