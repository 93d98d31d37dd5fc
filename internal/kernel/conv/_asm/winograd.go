package main

import (
	"fmt"
	"math"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	. "github.com/jouleml/joule/internal/kernel/vec/_asm/simd"
)

// The transforms of Winograd's algorithm on six points: 0, ±a, ±b and infinity. See ../winograd.go for the matrices.
const (
	a = 5.0 / 8
	b = 3.0 / 2
)

var (
	na = 1 / (2 * a * a * (a*a - b*b))
	nb = 1 / (2 * b * b * (b*b - a*a))
)

// table holds the constants, each repeated over a vector of 64 bytes.
var table = []struct {
	name string
	v    float64
}{
	{"p", a * a * b * b}, {"s", a*a + b*b}, {"a", a}, {"b", b}, {"a2", a * a}, {"b2", b * b}, {"a3", a * a * a}, {"b3", b * b * b},
	{"a4", a * a * a * a}, {"b4", b * b * b * b}, {"1/p", 1 / (a * a * b * b)},
	{"na", na}, {"nb", nb}, {"na·a", na * a}, {"nb·b", nb * b}, {"na·a2", na * a * a}, {"nb·b2", nb * b * b},
	{"na·a3", na * a * a * a}, {"nb·b3", nb * b * b * b}, {"na·a4", na * a * a * a * a}, {"nb·b4", nb * b * b * b * b},
}

func constants(c *build.Context) {
	c.StaticGlobal("constants")
	c.DataAttributes(attr.NOPTR | attr.RODATA)
	for i, k := range table {
		for j := range 16 {
			c.AddDatum(64*i+4*j, operand.U32(math.Float32bits(float32(k.v))))
		}
	}
}

// k is a constant as an operand: a register, if hold put it there, else in memory.
func (g *gen) k(name string) operand.Op {
	if r, ok := g.held[name]; ok {
		return r
	}
	for i, k := range table {
		if k.name == name {
			return operand.NewDataAddr(operand.NewStaticSymbol("constants"), 64*i)
		}
	}
	panic("no constant " + name)
}

// hold loads the constants that the lines of a transform will ask for into registers, where there are enough of these.
func (g *gen) hold(names ...string) {
	g.held = map[string]reg.Register{}
	if g.Bytes() < 64 {
		return
	}
	for _, n := range names {
		r := g.Vec()
		g.VMOVUPS(g.k(n), r)
		g.held[n] = r
	}
}

// copy sets r to a constant.
func (g *gen) copy(k operand.Op, r reg.Register) {
	if _, ok := k.(reg.Register); ok {
		g.VMOVAPS(k, r)
		return
	}
	g.VMOVUPS(k, r)
}

type vecs []reg.VecVirtual

func (g *gen) vecs(n int) vecs {
	v := make(vecs, n)
	for i := range v {
		v[i] = g.Vec()
	}
	return v
}

// points is Bᵀ: six elements of an image to their values at the points, in place but for a shuffle of registers.
func (g *gen) points(d vecs) vecs {
	t0, t5 := g.Vec(), g.Vec()
	// t0 = p·d0 − s·d2 + d4, t5 = p·d1 − s·d3 + d5
	for i, t := range (vecs{t0, t5}) {
		g.copy(g.k("p"), t)
		g.VFMADD213PS(d[4+i], d[i], t)
		g.VFNMADD231PS(g.k("s"), d[2+i], t)
	}
	pair := func(x, x2 string) (plus, minus reg.VecVirtual) { // at ±x, the other points being ±√x2
		o, e, f := g.Vec(), g.Vec(), g.Vec()
		g.VMOVAPS(d[3], o)
		g.VFNMADD231PS(g.k(x2), d[1], o)
		g.VMOVAPS(d[4], e)
		g.VFNMADD231PS(g.k(x2), d[2], e)
		g.VMOVAPS(e, f)
		g.VFMADD231PS(g.k(x), o, e)
		g.VFNMADD231PS(g.k(x), o, f)
		return e, f
	}
	t1, t2 := pair("a", "b2")
	t3, t4 := pair("b", "a2")
	return vecs{t0, t1, t2, t3, t4, t5}
}

// filter is G: the r taps of a filter to their scaled values at the points.
func (g *gen) filter(d vecs) vecs {
	r := len(d)
	t0 := g.Vec()
	g.VMULPS(g.k("1/p"), d[0], t0)
	pair := func(x string) (plus, minus reg.VecVirtual) {
		e, o, f := g.Vec(), g.Vec(), g.Vec()
		g.VMULPS(g.k("n"+x), d[0], e)
		g.VMULPS(g.k("n"+x+"·"+x), d[1], o)
		for i := 2; i < r; i++ {
			g.VFMADD231PS(g.k(fmt.Sprintf("n%s·%s%d", x, x, i)), d[i], (vecs{e, o})[i%2])
		}
		g.VSUBPS(o, e, f)
		g.VADDPS(o, e, e)
		return e, f
	}
	t1, t2 := pair("a")
	t3, t4 := pair("b")
	return vecs{t0, t1, t2, t3, t4, d[r-1]}
}

// result is Aᵀ: values at the points to m elements of the result.
func (g *gen) result(t vecs, m int) vecs {
	p1, q1, p2, q2 := g.Vec(), g.Vec(), g.Vec(), g.Vec()
	g.VADDPS(t[2], t[1], p1)
	g.VSUBPS(t[2], t[1], q1)
	g.VADDPS(t[4], t[3], p2)
	g.VSUBPS(t[4], t[3], q2)
	y := g.vecs(m)
	g.VADDPS(p1, t[0], y[0])
	g.VADDPS(p2, y[0], y[0])
	for j := 1; j < m; j++ {
		power := func(x string) string {
			if j == 1 {
				return x
			}
			return fmt.Sprint(x, j)
		}
		u, v := q1, q2
		if j%2 == 0 {
			u, v = p1, p2
		}
		if j == m-1 {
			g.VMOVAPS(t[5], y[j])
			g.VFMADD231PS(g.k(power("a")), u, y[j])
		} else {
			g.VMULPS(g.k(power("a")), u, y[j])
		}
		g.VFMADD231PS(g.k(power("b")), v, y[j])
	}
	return y
}

// filterConstants is what filter asks for: the first 2r+1 for r taps.
var filterConstants = []string{"1/p", "na", "nb", "na·a", "nb·b", "na·a2", "nb·b2", "na·a3", "nb·b3", "na·a4", "nb·b4"}

func genWinograd(g *gen) {
	g.expand("points", 6, 6, g.points, "p", "s", "a", "b", "a2", "b2")
	for r := 2; r <= 5; r++ {
		g.expand(fmt.Sprint("filter", r), r, 6, g.filter, filterConstants[:2*r+1]...)
	}
	for m := 2; m <= 5; m++ {
		g.contract(fmt.Sprint("result", m), 6, m, g.result, "a", "b", "a2", "b2", "a3", "b3", "a4", "b4")
	}
	for _, l := range stridedExpands {
		g.expand(l.name, len(l.m[0]), len(l.m), g.lines(l.m))
	}
	for _, l := range stridedContracts {
		line := g.lines(l.m)
		g.contract(l.name, len(l.m[0]), len(l.m), func(t vecs, _ int) vecs { return line(t) })
	}
}

// The transforms for stride 2, see ../strided.go; all entries are 0, 1 and −1.
type matrix struct {
	name string
	m    [][]int
}

var stridedExpands = []matrix{
	{"stridedPoints", [][]int{{1, 0, -1, 0, 0}, {0, 0, 1, 0, 0}, {0, 0, -1, 0, 1}, {0, 1, 0, 0, 0}, {0, 0, 0, 1, 0}}},
	{"stridedBack", [][]int{{1, -1, 0}, {0, 1, 0}, {0, -1, 1}, {1, 0, 0}}},
	{"stridedFilter", [][]int{{1, 0, 0}, {1, 0, 1}, {0, 0, 1}, {0, 1, 0}}},
	{"stridedGrad", [][]int{{1, 0}, {1, 1}, {0, 1}}},
}

var stridedContracts = []matrix{
	{"stridedResult2", [][]int{{1, 1, 0, 1, 0}, {0, 1, 1, 0, 1}}},
	{"stridedResult3", [][]int{{1, 1, 0, 0}, {0, 0, 0, 1}, {0, 1, 1, 0}}},
	{"stridedResult4", [][]int{{0, 0, 0, 1, 0}, {1, 1, 0, 0, 0}, {0, 0, 0, 0, 1}, {0, 1, 1, 0, 0}}},
}

// lines multiplies by a matrix of 0, 1 and −1 whose rows have a 1 each.
func (g *gen) lines(m [][]int) func(vecs) vecs {
	return func(d vecs) vecs {
		out := make(vecs, len(m))
		for i, row := range m {
			first := slices.Index(row, 1)
			out[i] = d[first]
			for j, c := range row {
				if j == first || c == 0 {
					continue
				}
				v := g.Vec()
				if c > 0 {
					g.VADDPS(d[j], out[i], v)
				} else {
					g.VSUBPS(d[j], out[i], v)
				}
				out[i] = v
			}
		}
		return out
	}
}

// nextVector moves c, the offset of the channels, on by a vector and goes back to the label vector; the last vector ends with
// the last of n bytes of channels, whatever n is, and so may do some channels again, to the same values.
func (g *gen) nextVector(c, n, tmp reg.Register) {
	g.ADDQ(operand.U32(uint32(g.Bytes())), c)
	g.CMPQ(c, n)
	g.JGE(operand.LabelRef("end"))
	g.LEAQ(At(n, -g.Bytes()), tmp)
	g.CMPQ(c, tmp)
	g.CMOVQGT(tmp, c)
	g.JMP(operand.LabelRef("vector"))
	g.Label("end")
}

// expand writes the two-dimensional transform of r×r pixels to n×n points.
func (g *gen) expand(name string, r, points int, line func(vecs) vecs, constants ...string) {
	name += g.Suffix
	g.Begin(name, "(dst *float32, pointStride int, rows *[]float32, colStride, j0, j1, n int, tmp *float32)",
		fmt.Sprintf("is expandGo for %d rows and columns to %d; n is at least %d and tmp has room for 36 vectors.", r, points, g.Bytes()/4))
	dst, ps, rows, cs := g.Arg("dst"), g.ArgBytes("pointStride"), g.Arg("rows"), g.ArgBytes("colStride")
	n, tmp := g.ArgBytes("n"), g.Arg("tmp")
	c, off, j, q, p := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.hold(constants...)
	g.XORQ(c, c)
	g.Label("vector")

	// Columns of pixels to columns of points, in tmp.
	g.MOVQ(c, off)
	g.XORQ(j, j)
	g.MOVQ(tmp, q)
	g.Label("column")
	j0 := g.Load(g.Param("j0"), g.GP64())
	g.CMPQ(j, j0)
	g.JLT(operand.LabelRef("empty"))
	j1 := g.Load(g.Param("j1"), g.GP64())
	g.CMPQ(j, j1)
	g.JGE(operand.LabelRef("empty"))
	d := g.vecs(r)
	for i := range d {
		g.MOVQ(At(rows, 24*i), p)
		g.VMOVUPS(Idx(p, off, 1), d[i])
	}
	for i, t := range line(d) {
		g.VMOVUPS(t, At(q, i*g.Bytes()))
	}
	g.ADDQ(cs, off)
	g.JMP(operand.LabelRef("next"))
	g.Label("empty")
	z := g.Vec()
	g.Zero(z)
	for i := range points {
		g.VMOVUPS(z, At(q, i*g.Bytes()))
	}
	g.Label("next")
	g.ADDQ(operand.U32(uint32(points*g.Bytes())), q)
	g.INCQ(j)
	g.CMPQ(j, operand.U8(uint8(r)))
	g.JLT(operand.LabelRef("column"))

	// Rows of tmp to points.
	g.LEAQ(Idx(dst, c, 1), q)
	g.MOVQ(tmp, p)
	g.MOVQ(operand.U32(uint32(points)), j)
	g.Label("row")
	d = g.vecs(r)
	for i := range d {
		g.VMOVUPS(At(p, points*i*g.Bytes()), d[i])
	}
	for _, t := range line(d) {
		g.VMOVUPS(t, At(q, 0))
		g.ADDQ(ps, q)
	}
	g.ADDQ(operand.U32(uint32(g.Bytes())), p)
	g.DECQ(j)
	g.JNZ(operand.LabelRef("row"))
	g.nextVector(c, n, q)
	g.End()
}

// contract writes the two-dimensional transform of n×n points to up to m×m pixels.
func (g *gen) contract(name string, points, m int, line func(vecs, int) vecs, constants ...string) {
	name += g.Suffix
	g.Begin(name, "(dst *float32, rowStride, colStride int, src *float32, pointStride, rows, cols, n int, bias *float32, relu int, tmp *float32)",
		fmt.Sprintf("is contractGo for %d×%d points and a result of %d×%d; n is at least %d and tmp has room for 36 vectors.", points, points, m, m, g.Bytes()/4))
	dst, rs, cs := g.Arg("dst"), g.ArgBytes("rowStride"), g.ArgBytes("colStride")
	src, ps := g.Arg("src"), g.ArgBytes("pointStride")
	n, tmp := g.ArgBytes("n"), g.Arg("tmp")
	c, j, q, p := g.GP64(), g.GP64(), g.GP64(), g.GP64()
	g.hold(constants...)
	g.XORQ(c, c)
	g.Label("vector")

	// The points lie line by line: to lines of m in tmp.
	g.LEAQ(Idx(src, c, 1), q)
	g.MOVQ(tmp, p)
	g.MOVQ(operand.U32(uint32(points)), j)
	g.Label("row")
	d := g.vecs(points)
	for i := range d {
		g.VMOVUPS(At(q, 0), d[i])
		g.ADDQ(ps, q)
	}
	for i, t := range line(d, m) {
		g.VMOVUPS(t, At(p, points*i*g.Bytes()))
	}
	g.ADDQ(operand.U32(uint32(g.Bytes())), p)
	g.DECQ(j)
	g.JNZ(operand.LabelRef("row"))

	// tmp[i] holds column i of the result at the points of its rows.
	bias, limit, count := g.GP64(), g.GP64(), g.GP64()
	v := g.Vec()
	g.Zero(v)
	g.Load(g.Param("bias"), bias)
	g.TESTQ(bias, bias)
	g.JZ(operand.LabelRef("nobias"))
	g.VMOVUPS(Idx(bias, c, 1), v)
	g.Label("nobias")
	g.Load(g.Param("cols"), j)
	g.Load(g.Param("rows"), limit)
	g.MOVQ(tmp, p)
	g.LEAQ(Idx(dst, c, 1), q)
	g.Label("column")
	d = g.vecs(points)
	for i := range d {
		g.VMOVUPS(At(p, i*g.Bytes()), d[i])
	}
	y := line(d, m)
	for i := range y {
		g.VADDPS(v, y[i], y[i])
	}
	g.Load(g.Param("relu"), count)
	g.TESTQ(count, count)
	g.JZ(operand.LabelRef("store"))
	z := g.Vec()
	g.Zero(z)
	for i := range y {
		g.VMAXPS(y[i], z, y[i]) // in this order a NaN stays a NaN
	}
	g.Label("store")
	to := g.GP64()
	g.MOVQ(q, to)
	for i := range y {
		if i > 0 {
			g.CMPQ(limit, operand.U8(uint8(i)))
			g.JLE(operand.LabelRef("stored"))
		}
		g.VMOVUPS(y[i], At(to, 0))
		g.ADDQ(rs, to)
	}
	g.Label("stored")
	g.ADDQ(operand.U32(uint32(points*g.Bytes())), p)
	g.ADDQ(cs, q)
	g.DECQ(j)
	g.JNZ(operand.LabelRef("column"))
	g.nextVector(c, n, q)
	g.End()
}
