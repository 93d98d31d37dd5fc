package gemm

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/jouleml/joule/internal/isa"
)

// TestTileLayout holds the field offsets that the assembly uses to the Go struct.
func TestTileLayout(t *testing.T) {
	var x Tile
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"A", unsafe.Offsetof(x.A), 0},
		{"AOff", unsafe.Offsetof(x.AOff), 24},
		{"Segs", unsafe.Offsetof(x.Segs), 48},
		{"B", unsafe.Offsetof(x.B), 72},
		{"C", unsafe.Offsetof(x.C), 96},
		{"COff", unsafe.Offsetof(x.COff), 120},
		{"In", unsafe.Offsetof(x.In), 144},
		{"Bias", unsafe.Offsetof(x.Bias), 168},
		{"Act", unsafe.Offsetof(x.Act), 192},
		{"row", unsafe.Offsetof(x.row), 200},
		{"tiles", unsafe.Offsetof(x.tiles), 208},
		{"tail", unsafe.Offsetof(x.tail), 216},
		{"aStride", unsafe.Offsetof(x.aStride), 224},
		{"bStride", unsafe.Offsetof(x.bStride), 232},
		{"scratch", unsafe.Offsetof(x.scratch), 240},
		{"across", unsafe.Offsetof(x.across), 272},
		{"panels", unsafe.Offsetof(x.panels), 312},
		{"step", unsafe.Offsetof(x.step), 320},
		{"left", unsafe.Offsetof(x.left), 328},
		{"cur", unsafe.Offsetof(x.cur), 336},
		{"Seg.Len", unsafe.Offsetof(Seg{}.Len), 8},
		{"Seg", unsafe.Sizeof(Seg{}), 16},
	} {
		if f.got != f.want {
			t.Errorf("%s at %d, the assembly says %d", f.name, f.got, f.want)
		}
	}
}

// eachLevel runs f once for every instruction set that this CPU has.
func eachLevel(t *testing.T, f func(t *testing.T)) {
	for _, l := range isa.Levels() {
		t.Run(l.String(), func(t *testing.T) {
			defer isa.Use(l)()
			f(t)
		})
	}
}

const guard = 19 // elements of sentinel on both sides of a guarded slice

var sentinel = math.Float32frombits(0x7fc0dead) // a NaN: poisons whatever is computed from it

// guarded makes a slice of n elements, all NaN, in the middle of sentinels; intact says whether these still stand.
func guarded(n, misalign int) (s []float32, intact func() bool) {
	all := make([]float32, n+2*guard+misalign)
	for i := range all {
		all[i] = sentinel
	}
	lo := guard + misalign
	return all[lo : lo+n : lo+n], func() bool {
		for i, x := range all {
			if (i < lo || i >= lo+n) && math.Float32bits(x) != 0x7fc0dead {
				return false
			}
		}
		return true
	}
}

func fill(rng *rand.Rand, s []float32) {
	for i := range s {
		s[i] = float32(rng.NormFloat64())
	}
}

// near reports whether got is within the rounding of a sum of n products whose absolute values add up to abs. Each of at most 2n
// roundings is at most 2⁻²⁴ relative to a partial sum of at most abs, so the error is below 2n·2⁻²⁴·abs in any order of the sum
// (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2). Roundings of random numbers are as good as independent:
// for long sums 8·√n in place of 2n holds (Higham and Mary, SIAM J. Sci. Comput. 41(5), 2019, theorem 2.4, with λ = 5.7), and
// still notices a single missing addend.
func near(got float32, want, abs float64, n int) bool {
	roundings := min(2*float64(n), 8*math.Sqrt(float64(n))) + 3
	return math.Abs(float64(got)-want) <= roundings*0x1p-24*abs+1e-37
}

type tileCase struct {
	rows, cols int
	segs       []Seg
	aStride    int
	ldb        int
	in, bias   bool
	act        Act
	misalign   int
	panel      int // Tile.Panel, where cols is more than a panel's
}

func (c tileCase) String() string {
	return fmt.Sprintf("rows=%d cols=%d segs=%v aStride=%d ldb=%d in=%v bias=%v act=%d misalign=%d panel=%d",
		c.rows, c.cols, c.segs, c.aStride, c.ldb, c.in, c.bias, c.act, c.misalign, c.panel)
}

// run computes one case with every element of A, B and Bias that the tile must not read set to NaN.
func (c tileCase) run(t *testing.T, rng *rand.Rand) {
	t.Helper()
	k, reach := 0, 0
	for _, s := range c.segs {
		k += s.Len
		reach = max(reach, s.Off+(s.Len-1)*c.aStride+1)
	}
	gap := rng.IntN(5)
	a, aOK := guarded(c.rows*(reach+gap), c.misalign)
	ldc := c.cols + rng.IntN(4)
	out, cOK := guarded((c.rows-1)*ldc+c.cols, c.misalign)
	width := min(c.cols, NR())
	b, bOK := guarded((c.cols/width-1)*c.panel+(k-1)*c.ldb+width, c.misalign)
	tile := &Tile{A: a, B: b, C: out, Segs: c.segs, AStride: c.aStride, LDB: c.ldb, Cols: c.cols, Panel: c.panel, Act: c.act}
	for _, r := range rng.Perm(c.rows) {
		tile.AOff = append(tile.AOff, r*(reach+gap))
		tile.COff = append(tile.COff, r*ldc)
	}
	for _, o := range tile.AOff {
		for _, s := range c.segs {
			for i := range s.Len {
				a[o+s.Off+i*c.aStride] = float32(rng.NormFloat64())
			}
		}
	}
	for i := range k {
		for p := range c.cols / width {
			fill(rng, b[p*c.panel+i*c.ldb:][:width])
		}
	}
	inOK, biasOK := func() bool { return true }, func() bool { return true }
	if c.in {
		tile.In, inOK = guarded(len(out), c.misalign)
		for _, o := range tile.COff {
			fill(rng, tile.In[o:][:c.cols])
		}
	}
	if c.bias {
		tile.Bias, biasOK = guarded(c.cols, c.misalign)
		fill(rng, tile.Bias)
	}
	tile.Run()
	if !aOK() || !bOK() || !cOK() || !inOK() || !biasOK() {
		t.Fatalf("%v: wrote outside of C", c)
	}
	written := 0
	for r := range c.rows {
		for j := range c.cols {
			var want, abs float64
			if c.bias {
				want += float64(tile.Bias[j])
				abs += math.Abs(float64(tile.Bias[j]))
			}
			if c.in {
				x := float64(tile.In[tile.COff[r]+j])
				want += x
				abs += math.Abs(x)
			}
			kk := 0
			for _, s := range c.segs {
				for i := range s.Len {
					x := float64(a[tile.AOff[r]+s.Off+i*c.aStride]) * float64(b[j/width*c.panel+kk*c.ldb+j%width])
					want += x
					abs += math.Abs(x)
					kk++
				}
			}
			if c.act == ReLU {
				want = max(want, 0)
			}
			if got := out[tile.COff[r]+j]; !near(got, want, abs, k) {
				t.Fatalf("%v: C[%d][%d] = %v, want %v", c, r, j, got, want)
			}
			written++
		}
	}
	for _, x := range out {
		if math.Float32bits(x) != 0x7fc0dead {
			written--
		}
	}
	if written != 0 {
		t.Fatalf("%v: wrote between the rows of C", c)
	}
}

func TestTile(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(1, 2))
		n := NR()
		for rows := 1; rows <= 2*maxRows+1; rows++ {
			for cols := 1; cols <= n; cols++ {
				tileCase{rows: rows, cols: cols, segs: []Seg{{0, 1 + rng.IntN(9)}}, aStride: 1, ldb: cols + rng.IntN(3),
					in: rng.IntN(2) == 0, bias: rng.IntN(2) == 0, act: Act(rng.IntN(2)), misalign: rng.IntN(16)}.run(t, rng)
			}
		}
		for rows := 1; rows <= 2*maxRows+1; rows++ {
			for panels := 2; panels <= 4; panels++ {
				c := tileCase{rows: rows, cols: panels * n, aStride: 1 + rng.IntN(2)*rng.IntN(20), ldb: n + rng.IntN(3),
					in: rng.IntN(2) == 0, bias: rng.IntN(2) == 0, act: Act(rng.IntN(2)), misalign: rng.IntN(16)}
				length := 1 + rng.IntN(9)
				c.segs = []Seg{{0, length}, {2, 1}}
				c.panel = c.ldb*(length+1) + rng.IntN(3)
				if rng.IntN(2) == 0 { // in place
					c.ldb, c.panel = c.cols, n
				}
				c.run(t, rng)
			}
		}
		for range 300 {
			c := tileCase{rows: 1 + rng.IntN(40), cols: 1 + rng.IntN(n), aStride: 1 + rng.IntN(2)*rng.IntN(20),
				in: rng.IntN(2) == 0, bias: rng.IntN(2) == 0, act: Act(rng.IntN(2)), misalign: rng.IntN(16)}
			c.ldb = c.cols + rng.IntN(30)
			for range 1 + rng.IntN(5) {
				c.segs = append(c.segs, Seg{rng.IntN(50), 1 + rng.IntN(12)})
			}
			c.run(t, rng)
		}
	})
}

// TestTileCut checks that where the rows are cut changes no bit.
func TestTileCut(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(3, 4))
		const rows, k = 23, 37
		n := NR()
		a, b := make([]float32, rows*k), make([]float32, k*n)
		fill(rng, a)
		fill(rng, b)
		var aOff, cOff []int
		for r := range rows {
			aOff, cOff = append(aOff, r*k), append(cOff, r*n)
		}
		run := func(cut int) []float32 {
			c := make([]float32, rows*n)
			tile := &Tile{A: a, B: b, C: c, Segs: []Seg{{0, k}}, AStride: 1, LDB: n, Cols: n}
			tile.AOff, tile.COff = aOff[:cut], cOff[:cut]
			tile.Run()
			tile.AOff, tile.COff = aOff[cut:], cOff[cut:]
			tile.Run()
			return c
		}
		want := run(0)
		for cut := 1; cut <= rows; cut++ {
			for i, x := range run(cut) {
				if x != want[i] {
					t.Fatalf("cut at row %d: element %d is %v, was %v", cut, i, x, want[i])
				}
			}
		}
	})
}

func TestTileReLUKeepsNaN(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		nan := float32(math.NaN())
		c := make([]float32, 3)
		(&Tile{A: []float32{1}, AOff: []int{0}, COff: []int{0}, Segs: []Seg{{0, 1}}, AStride: 1,
			B: []float32{nan, -2, 3}, LDB: 3, Cols: 3, C: c, Act: ReLU}).Run()
		if c[0] == c[0] || c[1] != 0 || c[2] != 3 {
			t.Fatalf("ReLU of NaN, −2, 3 is %v", c)
		}
	})
}

func TestTileMisuse(t *testing.T) {
	one := func() *Tile {
		return &Tile{A: make([]float32, 4), AOff: []int{0}, COff: []int{0}, Segs: []Seg{{0, 2}}, AStride: 1,
			B: make([]float32, 6), LDB: 3, Cols: 3, C: make([]float32, 3)}
	}
	one().Run()
	for name, spoil := range map[string]func(*Tile){
		"short B":       func(x *Tile) { x.B = x.B[:5] },
		"no segments":   func(x *Tile) { x.Segs = nil },
		"empty segment": func(x *Tile) { x.Segs = []Seg{{0, 0}} },
		"too wide":      func(x *Tile) { x.Cols, x.LDB, x.B = 65, 65, make([]float32, 130) },
		"half a panel":  func(x *Tile) { x.Cols, x.LDB, x.Panel, x.B = 65, 65, NR(), make([]float32, 130) },
		"panel": func(x *Tile) {
			x.Cols, x.LDB, x.B, x.C = 2*NR(), 2*NR(), make([]float32, 4*NR()), make([]float32, 2*NR())
		},
		"tables": func(x *Tile) { x.COff = nil },
		"LDB":    func(x *Tile) { x.LDB = 2 },
		"bias":   func(x *Tile) { x.Bias = make([]float32, 2) },
		"in":     func(x *Tile) { x.In = make([]float32, 2) },
		"offset": func(x *Tile) { x.AOff = []int{4} },
		"C":      func(x *Tile) { x.COff = []int{1} },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			x := one()
			spoil(x)
			x.Run()
		}()
	}
}

// BenchmarkTile runs the kernel on operands that fit in the L1 cache: the most that any product can reach.
func BenchmarkTile(b *testing.B) {
	for _, l := range isa.Levels()[1:] {
		restore := isa.Use(l)
		for cols := Lanes(); cols <= NR(); cols += Lanes() {
			rows, k := 2*TileRows(cols), 64
			t := &Tile{A: make([]float32, rows*k), B: make([]float32, k*cols), C: make([]float32, rows*cols),
				Segs: []Seg{{0, k}}, AStride: 1, LDB: cols, Cols: cols}
			for r := range rows {
				t.AOff, t.COff = append(t.AOff, r*k), append(t.COff, r*cols)
			}
			b.Run(fmt.Sprintf("%v/%dx%dx%d", l, rows, k, cols), func(b *testing.B) {
				for b.Loop() {
					t.Run()
				}
				b.ReportMetric(float64(2*rows*k*cols)*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GFLOP/s")
			})
		}
		restore()
	}
}
