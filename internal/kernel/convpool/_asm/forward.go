package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

const (
	gt = 0x1e // greater than, false for NaN
)

// pool writes what follows the convolution: the greatest of a window's four pixels, bias, rectifier, and which pixel it was.
// The bias is added after the maximum, which adding preserves. y and ix are where the results go; id makes labels
// unique. If the register idxBase holds nil, the position is left out.
func (g *gen) pool(a [4]reg.Register, bias operand.Mem, y, ix operand.Mem, idxBase reg.Register, id string) {
	m01, m23, m, v, z := g.Vec(), g.Vec(), g.Vec(), g.Vec(), g.Vec()
	g.VMAXPS(a[1], a[0], m01)
	g.VMAXPS(a[3], a[2], m23)
	g.VMAXPS(m23, m01, m)
	g.VADDPS(bias, m, v)
	g.Zero(z)
	out := g.Vec()
	g.VMAXPS(v, z, out) // in this order a NaN stays a NaN
	g.VMOVUPS(out, y)
	g.TESTQ(idxBase, idxBase)
	g.JZ(operand.LabelRef("noidx" + id))
	i, j := g.Vec(), g.Vec()
	if g.Wide() {
		k1, k2, k3, k4 := g.K(), g.K(), g.K(), g.K()
		g.VCMPPS(operand.U8(gt), a[0], a[1], k1)
		g.VCMPPS(operand.U8(gt), a[2], a[3], k2)
		g.VCMPPS(operand.U8(gt), m01, m23, k3)
		g.VCMPPS(operand.U8(gt), z, v, k4)
		g.VMOVDQU32_Z(g.k(kOne), k1, i)
		g.VMOVDQU32(g.k(kTwo), j)
		g.VMOVDQU32(g.k(kThree), k2, j)
		g.VMOVDQA32(j, k3, i)
		d := g.Vec()
		g.VMOVDQU32(g.k(kFour), d)
		g.VMOVDQA32(i, k4, d)
		g.VPMOVDB(d, ix)
	} else {
		c := g.Vec()
		g.VCMPPS(operand.U8(gt), a[0], a[1], c)
		g.VPSRLD(operand.U8(31), c, i)
		g.VCMPPS(operand.U8(gt), a[2], a[3], c)
		g.VMOVDQU(g.k(kTwo), j)
		g.VPSUBD(c, j, j)
		g.VCMPPS(operand.U8(gt), m01, m23, c)
		g.VBLENDVPS(c, j, i, i)
		g.VCMPPS(operand.U8(gt), z, v, c)
		g.VMOVDQU(g.k(kFour), j)
		g.VBLENDVPS(c, i, j, i)
		h := g.XMM()
		g.VEXTRACTI128(operand.U8(1), i, h)
		g.VPACKSSDW(h, i.AsX(), h)
		g.VPACKUSWB(h, h, h)
		g.VMOVQ(h, ix)
	}
	g.Label("noidx" + id)
}

// direct writes the direct algorithm for a line of windows and two vectors of channels.
func (g *gen) direct() {
	g.Begin("direct"+g.Suffix, "(y *float32, ix *uint8, x, w, bias *float32, rowStride, cin, stride, windows int)",
		fmt.Sprintf("is directGo for %d channels.", g.Bytes()/2))
	y, ix, x, w, bias := g.Arg("y"), g.Arg("ix"), g.Arg("x"), g.Arg("w"), g.Arg("bias")
	rs := g.ArgBytes("rowStride")
	cs := g.ArgBytes("cin")
	g.Label("window")
	var acc [4][2]reg.Register // [pixel][vector]
	for p := range acc {
		for v := range acc[p] {
			r := g.Vec()
			g.Zero(r)
			acc[p][v] = r
		}
	}
	wp, xp, n := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(w, wp)
	g.MOVQ(x, xp)
	g.Load(g.Param("cin"), n)
	g.Align(32)
	g.Label("channel")
	q, q3 := g.GP64(), g.GP64()
	g.MOVQ(xp, q)
	for r := range 4 {
		var in [4]reg.Register
		for j := range in {
			in[j] = g.Vec()
		}
		g.LEAQ(Idx(q, cs, 2), q3)
		g.VBROADCASTSS(At(q, 0), in[0])
		g.VBROADCASTSS(Idx(q, cs, 1), in[1])
		g.VBROADCASTSS(At(q3, 0), in[2])
		g.VBROADCASTSS(Idx(q3, cs, 1), in[3])
		if r < 3 {
			g.ADDQ(rs, q)
		}
		for oy := range 2 {
			ky := r - oy
			if ky < 0 || ky > 2 {
				continue
			}
			for kx := range 3 {
				for v := range 2 {
					t := g.Vec()
					g.VMOVUPS(At(wp, ((ky*3+kx)*2+v)*g.Bytes()), t)
					for ox := range 2 {
						g.VFMADD231PS(in[kx+ox], t, acc[2*oy+ox][v])
					}
				}
			}
		}
	}
	g.ADDQ(operand.U32(uint32(18*g.Bytes())), wp)
	g.ADDQ(operand.U8(4), xp)
	g.DECQ(n)
	g.JNZ(operand.LabelRef("channel"))
	for v := range 2 {
		g.pool([4]reg.Register{acc[0][v], acc[1][v], acc[2][v], acc[3][v]}, At(bias, v*g.Bytes()), At(y, v*g.Bytes()), At(ix, v*g.Bytes()/4), ix, fmt.Sprint(v))
	}
	g.LEAQ(Idx(x, cs, 2), x)
	s := g.Load(g.Param("stride"), g.GP64())
	g.LEAQ(Idx(y, s, 4), y)
	g.TESTQ(ix, ix)
	g.JZ(operand.LabelRef("next"))
	g.ADDQ(s, ix)
	g.Label("next")
	g.again("windows", "window")
	g.End()
}

// points writes Winograd's transform of the images.
func (g *gen) points() {
	g.Begin("points"+g.Suffix, "(dst *float32, pointStride int, x *float32, rowStride, cin, windows int)",
		fmt.Sprintf("is pointsGo for cin a multiple of %d.", g.Bytes()/4))
	dst, ps, x := g.Arg("dst"), g.ArgBytes("pointStride"), g.Arg("x")
	rs, cs := g.ArgBytes("rowStride"), g.ArgBytes("cin")
	windows := g.Arg("windows")
	c, q, p, q3 := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.Label("window")
	g.XORQ(c, c)
	g.Label("vector")
	g.LEAQ(Idx(dst, c, 1), p)
	// Row i of points is the difference or sum of two rows of the image, combined likewise along the columns.
	pairs := [4][2]int{{0, 2}, {1, 2}, {2, 1}, {1, 3}}
	for _, r := range pairs {
		var t [4]reg.Register
		q2 := g.GP64()
		row := func(d reg.Register, i int) {
			g.LEAQ(Idx(x, c, 1), d)
			switch i {
			case 1:
				g.ADDQ(rs, d)
			case 2:
				g.LEAQ(Idx(d, rs, 2), d)
			case 3:
				g.LEAQ(Idx(d, rs, 2), d)
				g.ADDQ(rs, d)
			}
		}
		row(q, r[0])
		row(q2, r[1])
		for j := range t {
			v := g.Vec()
			a, b := At(q, 0), At(q2, 0)
			switch j {
			case 1, 3:
				a, b = Idx(q, cs, 1), Idx(q2, cs, 1)
			case 2:
				g.LEAQ(Idx(q, cs, 2), q)
				g.LEAQ(Idx(q2, cs, 2), q2)
				a, b = At(q, 0), At(q2, 0)
			}
			g.VMOVUPS(a, v)
			if r == pairs[1] {
				g.VADDPS(b, v, v)
			} else {
				g.VSUBPS(b, v, v)
			}
			t[j] = v
		}
		for _, s := range pairs {
			v := g.Vec()
			if s == pairs[1] {
				g.VADDPS(t[s[1]], t[s[0]], v)
			} else {
				g.VSUBPS(t[s[1]], t[s[0]], v)
			}
			g.VMOVUPS(v, At(p, 0))
			g.ADDQ(ps, p)
		}
	}
	g.ADDQ(operand.U32(uint32(g.Bytes())), c)
	g.CMPQ(c, cs)
	g.JLT(operand.LabelRef("vector"))
	_ = q3
	g.ADDQ(cs, dst)
	g.LEAQ(Idx(x, cs, 2), x)
	g.DECQ(windows)
	g.JNZ(operand.LabelRef("window"))
	g.End()
}

// filters writes Winograd's transform of the filters.
func (g *gen) filters() {
	g.Begin("filters"+g.Suffix, "(dst *float32, pointStride, dstRow int, w *float32, tapStride, srcRow, rows, cols int)",
		fmt.Sprintf("is filtersGo for cols a multiple of %d.", g.Bytes()/4))
	dst, ps, w := g.Arg("dst"), g.ArgBytes("pointStride"), g.Arg("w")
	ts := g.ArgBytes("tapStride")
	cols := g.ArgBytes("cols")
	c, q, p := g.GP64(), g.GP64(), g.GP64()
	g.Label("row")
	g.XORQ(c, c)
	g.Label("vector")
	g.LEAQ(Idx(dst, c, 1), p)
	half := g.Vec()
	g.VMOVUPS(g.k(kHalf), half)
	// line is G along one axis.
	line := func(d [3]reg.Register) [4]reg.Register {
		s, e, o := g.Vec(), g.Vec(), g.Vec()
		g.VADDPS(d[2], d[0], s)
		g.VADDPS(d[1], s, e)
		g.VSUBPS(d[1], s, o)
		g.VMULPS(half, e, e)
		g.VMULPS(half, o, o)
		return [4]reg.Register{d[0], e, o, d[2]}
	}
	for i := range 4 {
		var t [3]reg.Register
		g.LEAQ(Idx(w, c, 1), q)
		for kx := range t {
			// Point i of column kx.
			q2 := g.GP64()
			g.LEAQ(Idx(ts, ts, 2), q2)
			g.ADDQ(q, q2) // row 1
			v := g.Vec()
			switch i {
			case 0:
				g.VMOVUPS(At(q, 0), v)
			case 1, 2:
				t3 := g.GP64()
				g.LEAQ(Idx(ts, ts, 2), t3)
				g.VMOVUPS(At(q, 0), v)
				g.VADDPS(Idx(q2, t3, 1), v, v)
				if i == 1 {
					g.VADDPS(At(q2, 0), v, v)
				} else {
					g.VSUBPS(At(q2, 0), v, v)
				}
				g.VMULPS(half, v, v)
			case 3:
				t3 := g.GP64()
				g.LEAQ(Idx(ts, ts, 2), t3)
				g.VMOVUPS(Idx(q2, t3, 1), v)
			}
			t[kx] = v
			g.ADDQ(ts, q)
		}
		for _, v := range line(t) {
			g.VMOVUPS(v, At(p, 0))
			g.ADDQ(ps, p)
		}
	}
	g.ADDQ(operand.U32(uint32(g.Bytes())), c)
	g.CMPQ(c, cols)
	g.JLT(operand.LabelRef("vector"))
	s := g.Load(g.Param("dstRow"), g.GP64())
	g.LEAQ(Idx(dst, s, 4), dst)
	g.Load(g.Param("srcRow"), s)
	g.LEAQ(Idx(w, s, 4), w)
	g.again("rows", "row")
	g.End()
}

// pooled writes Winograd's transform of the results, with the pooling.
func (g *gen) pooled() {
	g.Begin("pooled"+g.Suffix, "(y *float32, ix *uint8, m *float32, pointStride, ldm int, bias *float32, stride, cols, windows int)",
		fmt.Sprintf("is pooledGo for cols a multiple of %d.", g.Bytes()/4))
	y, ix, m, ps := g.Arg("y"), g.Arg("ix"), g.Arg("m"), g.ArgBytes("pointStride")
	bias, cols := g.Arg("bias"), g.Arg("cols")
	c, q := g.GP64(), g.GP64()
	g.Label("window")
	g.XORQ(c, c)
	g.Label("vector")
	g.LEAQ(Idx(m, c, 4), q)
	var s [2][4]reg.Register // rows of results, columns of points
	q2, q3 := g.GP64(), g.GP64()
	for j := range 4 {
		// Points j, 4+j, 8+j and 12+j.
		s[0][j], s[1][j] = g.Vec(), g.Vec()
		t := g.Vec()
		g.LEAQ(Idx(q, ps, 4), q2)
		g.LEAQ(Idx(q2, ps, 4), q3)
		g.VMOVUPS(At(q2, 0), s[0][j])
		g.VMOVUPS(At(q3, 0), t)
		g.VSUBPS(t, s[0][j], s[1][j])
		g.VSUBPS(Idx(q3, ps, 4), s[1][j], s[1][j])
		g.VADDPS(t, s[0][j], s[0][j])
		g.VADDPS(At(q, 0), s[0][j], s[0][j])
		if j < 3 {
			g.ADDQ(ps, q)
		}
	}
	var a [4]reg.Register
	for oy := range 2 {
		t := s[oy]
		l, r := g.Vec(), g.Vec()
		g.VSUBPS(t[2], t[1], r)
		g.VSUBPS(t[3], r, r)
		g.VADDPS(t[2], t[1], l)
		g.VADDPS(t[0], l, l)
		a[2*oy], a[2*oy+1] = l, r
	}
	g.pool(a, Idx(bias, c, 4), Idx(y, c, 4), Idx(ix, c, 1), ix, "")
	g.ADDQ(operand.U32(uint32(g.Bytes()/4)), c)
	g.CMPQ(c, cols)
	g.JLT(operand.LabelRef("vector"))
	t := g.Load(g.Param("ldm"), g.GP64())
	g.LEAQ(Idx(m, t, 4), m)
	g.Load(g.Param("stride"), t)
	g.LEAQ(Idx(y, t, 4), y)
	g.TESTQ(ix, ix)
	g.JZ(operand.LabelRef("next"))
	g.ADDQ(t, ix)
	g.Label("next")
	g.again("windows", "window")
	g.End()
}
