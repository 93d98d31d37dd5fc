// Command reduce writes reduce_amd64.s and stubs_amd64.go of package reduce.
package main

import (
	"math"

	. "github.com/mmcloughlin/avo/build"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/lanes"
)

func main() {
	ConstraintExpr("amd64")
	for _, l := range Targets {
		rows(l)
		columns(l)
		maps(l)
	}
	Generate()
}

func first(_ *L, s, _ []V) V { return s[0] }

func rows(l *L) {
	for _, f := range []Fold{
		{Name: "sumRow", Doc: "Σ a[i]", Combine: VADDPS, Term: first},
		{Name: "maxRow", Doc: "the largest a[i], NaN if any is", Neutral: math.Inf(-1), NaN: true, Combine: VMAXPS, Term: first},
		{Name: "minRow", Doc: "the least a[i], NaN if any is", Neutral: math.Inf(1), NaN: true, Combine: VMINPS, Term: first},
		{Name: "prodRow", Doc: "Π a[i]", Neutral: 1, Combine: VMULPS, Term: first},
		{Name: "sumSqRow", Doc: "Σ a[i]²", Combine: VADDPS, Term: func(l *L, s, _ []V) V { return l.Mul(s[0], s[0]) }},
		{Name: "devRow", Doc: "Σ (a[i] - m)²", Scalars: []string{"m"}, Combine: VADDPS, Term: func(l *L, s, c []V) V {
			d := l.Sub(s[0], c[0])
			return l.Mul(d, d)
		}},
		{Name: "dotRow", Doc: "Σ a[i]·b[i]", Srcs: []string{"a", "b"}, Combine: VADDPS, Term: func(l *L, s, _ []V) V { return l.Mul(s[0], s[1]) }},
		{Name: "sumExpRow", Doc: "Σ e^(a[i]-m)", Scalars: []string{"m"}, Combine: VADDPS, Unroll: 2, Term: expMinus},
		{Name: "expSumRow", Doc: "dst[i] = e^(a[i]-m), and their sum", Dst: true, Scalars: []string{"m"}, Combine: VADDPS, Unroll: 2, Term: expMinus},
	} {
		if f.Srcs == nil {
			f.Srcs = []string{"a"}
		}
		if f.Unroll == 0 {
			f.Unroll = 4
		}
		f.Emit(l)
	}
}

func expMinus(l *L, s, c []V) V { return l.Exp(l.Sub(s[0], c[0])) }

func columns(l *L) {
	same := func(_ *L, s, _ []V) []V { return s }
	for _, f := range []ColFold{
		{Name: "sumCols", Doc: "dst[j] = Σi a[i,j]", Terms: same},
		{Name: "maxCols", Doc: "dst[j] = the largest a[i,j], NaN if any is", Max: true, Neutral: math.Inf(-1), Terms: same},
		{Name: "minCols", Doc: "dst[j] = the least a[i,j], NaN if any is", Min: true, Neutral: math.Inf(1), Terms: same},
		{Name: "prodCols", Doc: "dst[j] = Πi a[i,j]", Product: true, Neutral: 1, Terms: same},
		{Name: "sumSqCols", Doc: "dst[j] = Σi a[i,j]²", Terms: func(l *L, s, _ []V) []V { return []V{l.Mul(s[0], s[0])} }},
		{Name: "devCols", Doc: "dst[j] = Σi (a[i,j] - m[j])²", Cols: []string{"m"}, Tile: 2, Terms: func(l *L, s, c []V) []V {
			d := l.Sub(s[0], c[0])
			return []V{l.Mul(d, d)}
		}},
	} {
		f.Outs, f.Srcs = []string{"dst"}, []string{"a"}
		if f.Tile == 0 {
			f.Tile = 4
		}
		f.Rows = 2
		f.Emit(l)
	}
}

func maps(l *L) {
	for _, f := range []Map{
		{Name: "mulAdd", Doc: "dst[i] = a[i]*s + t", Srcs: []string{"a"}, Scalars: []string{"s", "t"}, Unroll: 4, Body: func(l *L, s, c []V) V {
			l.FMA213(s[0], c[0], c[1])
			return s[0]
		}},
		{Name: "softmaxGrad", Doc: "dst[i] = y[i]*(dy[i] - s)", Srcs: []string{"y", "dy"}, Scalars: []string{"s"}, Unroll: 4, Body: func(l *L, s, c []V) V {
			return l.Mul(s[0], l.Sub(s[1], c[0]))
		}},
		{Name: "logSoftmaxGrad", Doc: "dst[i] = dy[i] - e^y[i]*s", Srcs: []string{"y", "dy"}, Scalars: []string{"s"}, Unroll: 1, Body: func(l *L, s, c []V) V {
			l.FNMA231(s[1], l.Exp(s[0]), c[0])
			return s[1]
		}},
	} {
		f.Emit(l)
	}
}
