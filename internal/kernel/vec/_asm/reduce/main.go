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
		{Name: "centredDotRow", Doc: "Σ a[i]·g[i]·(x[i]-m)", Srcs: []string{"a", "g", "x"}, Scalars: []string{"m"}, Combine: VADDPS, Term: func(l *L, s, c []V) V {
			return l.Mul(l.Mul(s[0], s[1]), l.Sub(s[2], c[0]))
		}},
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
		{Name: "shiftSums", Stream: true, Doc: "s0[j] = Σi x[i,j]-m[j], s1[j] = Σi (x[i,j]-m[j])²", Outs: []string{"s0", "s1"}, Srcs: []string{"x"}, Cols: []string{"m"}, Tile: 2,
			Terms: func(l *L, s, c []V) []V {
				d := l.Sub(s[0], c[0])
				return []V{d, l.Mul(d, d)}
			}},
		{Name: "batchSums", Stream: true, Doc: "s0[j] = Σi dy[i,j], s1[j] = Σi dy[i,j]·(x[i,j]-m[j])", Outs: []string{"s0", "s1"}, Srcs: []string{"dy", "x"}, Cols: []string{"m"}, Tile: 2, Rows: 1,
			Terms: func(l *L, s, c []V) []V { return []V{s[0], l.Mul(s[0], l.Sub(s[1], c[0]))} }},
		{Name: "batchSumsRelu", Stream: true, Doc: "batchSums, with 0 for dy where (x-m)*k + b is not above 0", Outs: []string{"s0", "s1"}, Srcs: []string{"dy", "x"}, Cols: []string{"m", "k", "b"}, Tile: 2, Rows: 1,
			Terms: func(l *L, s, c []V) []V {
				d := l.Sub(s[1], c[0])
				dy := l.Keep(l.Cmp(GT, affine(l, d, c[1], c[2]), l.Zero()), s[0])
				return []V{dy, l.Mul(dy, d)}
			}},
	} {
		if f.Outs == nil {
			f.Outs, f.Srcs = []string{"dst"}, []string{"a"}
		}
		if f.Tile == 0 {
			f.Tile = 4
		}
		if f.Rows == 0 {
			f.Rows = 2
		}
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
		{Name: "addTo", Doc: "dst[i] = a[i] + b[i]", Srcs: []string{"a", "b"}, Unroll: 4, Body: func(l *L, s, _ []V) V { return l.Add(s[0], s[1]) }},
		{Name: "norm", Streams: []string{"a"}, Doc: "dst[i] = (a[i]-m[i])*s[i] + b[i]", Srcs: []string{"a", "m", "s", "b"}, Unroll: 2, Body: norm},
		{Name: "normRelu", Streams: []string{"a"}, Doc: "dst[i] = max(0, (a[i]-m[i])*s[i] + b[i])", Srcs: []string{"a", "m", "s", "b"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			return l.Max(l.Zero(), norm(l, s, c))
		}},
		{Name: "batchGrad", Streams: []string{"dy", "x"}, Doc: "dst[i] = dy[i]*k1[i] + ((x[i]-m[i])*k2[i] + k3[i])", Srcs: []string{"dy", "x", "m", "k1", "k2", "k3"}, Unroll: 2, Body: batchGrad},
		{Name: "batchGradRelu", Streams: []string{"dy", "x"}, Doc: "batchGrad, with 0 for dy where (x[i]-m[i])*k1[i] + b[i] is not above 0", Srcs: []string{"dy", "x", "m", "k1", "k2", "k3", "b"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			s[0] = l.Keep(l.Cmp(GT, affine(l, l.Sub(s[1], s[2]), s[3], s[6]), l.Zero()), s[0])
			return batchGrad(l, s, c)
		}},
		{Name: "normAddRelu", Streams: []string{"a", "z"}, Doc: "dst[i] = max(0, (a[i]-m[i])*s[i] + b[i] + z[i])", Srcs: []string{"a", "m", "s", "b", "z"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			return l.Max(l.Zero(), l.Add(norm(l, s, c), s[4]))
		}},
		{Name: "where", Streams: []string{"y", "a"}, Doc: "dst[i] = a[i] where y[i] > 0, else 0", Srcs: []string{"y", "a"}, Unroll: 4, Body: func(l *L, s, _ []V) V {
			return l.Keep(l.Cmp(GT, s[0], l.Zero()), s[1])
		}},
		{Name: "sumWhere", Streams: []string{"y", "a", "b"}, Doc: "dst[i] = a[i] + b[i] where y[i] > 0, else 0", Srcs: []string{"y", "a", "b"}, Unroll: 4, Body: func(l *L, s, _ []V) V {
			return l.Keep(l.Cmp(GT, s[0], l.Zero()), l.Add(s[1], s[2]))
		}},
		{Name: "normRow", Doc: "dst[i] = (a[i]-m)*r*g[i] + b[i]", Srcs: []string{"a", "g", "b"}, Scalars: []string{"m", "r"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			x := l.Mul(l.Sub(s[0], c[0]), c[1])
			l.FMA213(x, s[1], s[2])
			return x
		}},
		{Name: "normRowGrad", Doc: "dst[i] = (dy[i]*g[i] - c1 - (x[i]-m)*r*c2)*r", Srcs: []string{"dy", "x", "g"}, Scalars: []string{"m", "r", "c1", "c2"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			h := l.Sub(l.Mul(s[0], s[2]), c[2])
			l.FNMA231(h, l.Mul(l.Sub(s[1], c[0]), c[1]), c[3])
			return l.Mul(h, c[1])
		}},
		{Name: "normGammaAdd", Doc: "dst[i] = acc[i] + dy[i]*((x[i]-m)*r)", Srcs: []string{"acc", "dy", "x"}, Scalars: []string{"m", "r"}, Unroll: 2, Body: func(l *L, s, c []V) V {
			l.FMA231(s[0], s[1], l.Mul(l.Sub(s[2], c[0]), c[1]))
			return s[0]
		}},
	} {
		f.Emit(l)
	}
}

func norm(l *L, s, _ []V) V {
	d := l.Sub(s[0], s[1])
	l.FMA213(d, s[2], s[3])
	return d
}

// affine is d*k + b, leaving d as it is, with the operations of norm.
func affine(l *L, d, k, b V) V {
	v := l.New()
	VMOVAPS(d, v)
	l.FMA213(v, k, b)
	return v
}

func batchGrad(l *L, s, _ []V) V {
	d := l.Sub(s[1], s[2])
	l.FMA213(d, s[4], s[5])
	l.FMA231(d, s[0], s[3])
	return d
}
