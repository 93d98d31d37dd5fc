package conv

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/allocs"
	"github.com/jouleml/joule/internal/par"
	"github.com/jouleml/joule/internal/race"
)

// winogradPlan is a plan that uses Winograd's algorithm whatever the rules say.
func winogradPlan(s Spec) *Plan {
	s = s.normal()
	return &Plan{spec: s, fwd: newWinogradForward(s), bwd: newWinogradBackward(s), filt: newWinogradFilter(s)}
}

func strided(s Spec) Spec {
	s.KH, s.KW, s.StrideH, s.StrideW = 3, 3, 2, 2
	return s
}

// winogradCases have filters of 3×3 taps where nothing else is said.
var winogradCases = []Spec{
	{N: 2, H: 7, W: 8, Cin: 32, Cout: 16, KH: 5, KW: 5, PadTop: 2, PadBottom: 2, PadLeft: 2, PadRight: 2},
	{N: 1, H: 6, W: 13, Cin: 16, Cout: 80, KH: 5, KW: 5, PadLeft: 5},
	{N: 3, H: 5, W: 5, Cin: 16, Cout: 16, KH: 5, KW: 5},
	{N: 1, H: 3, W: 3, Cin: 16, Cout: 16},
	{N: 2, H: 1, W: 5, Cin: 16, Cout: 32, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 3, H: 4, W: 4, Cin: 32, Cout: 16, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 9, W: 6, Cin: 48, Cout: 80, PadTop: 2, PadRight: 1},
	{N: 1, H: 7, W: 10, Cin: 112, Cout: 144, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 6, W: 6, Cin: 16, Cout: 16, PadTop: 3, PadBottom: 9, PadLeft: 4, PadRight: 5}, // tiles of zeros
	{N: 64, H: 4, W: 4, Cin: 16, Cout: 16, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 30, W: 25, Cin: 16, Cout: 16, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 1, H: 25, W: 30, Cin: 16, Cout: 144, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1},
	{N: 2, H: 9, W: 11, Cin: 61, Cout: 67, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1}, // part of a vector at the end
	{N: 1, H: 7, W: 6, Cin: 17, Cout: 31, KH: 5, KW: 5, PadTop: 2, PadBottom: 2, PadLeft: 2, PadRight: 2},
	strided(Spec{N: 2, H: 12, W: 8, Cin: 16, Cout: 32, PadTop: 1, PadBottom: 1, PadLeft: 1, PadRight: 1}),
	strided(Spec{N: 2, H: 12, W: 8, Cin: 32, Cout: 16, PadBottom: 1, PadRight: 1}),
	strided(Spec{N: 1, H: 13, W: 10, Cin: 61, Cout: 67, PadTop: 1, PadBottom: 1}),
	strided(Spec{N: 1, H: 11, W: 14, Cin: 48, Cout: 144, PadLeft: 1, PadRight: 2}),
	strided(Spec{N: 1, H: 9, W: 7, Cin: 16, Cout: 16, PadTop: 3, PadBottom: 5, PadLeft: 2, PadRight: 4}),
	strided(Spec{N: 3, H: 5, W: 4, Cin: 112, Cout: 80}), // pixels that nothing reads
}

// restore puts back the limits that tests change.
func restore() func() {
	a, b, c := sharedFloats, partTiles, fusedFloats
	return func() { sharedFloats, partTiles, fusedFloats = a, b, c }
}

func TestWinograd(t *testing.T) {
	if race.Enabled {
		t.Skip("what it computes is tested without the race detector; TestWinogradThreads shares the work among threads")
	}
	pool := par.New(3)
	defer pool.Close()
	defer restore()()
	eachLevel(t, func(t *testing.T) {
		for _, s := range winogradCases {
			if s.KH == 0 {
				s.KH, s.KW = 3, 3
			}
			if !s.normal().winogradFits() {
				t.Fatalf("%s does not fit", s.label())
			}
			for _, l := range [][3]int{{2 << 20, 96, 2 << 20}, {1, 1, 2 << 20}, {1, 1, 0}} {
				sharedFloats, partTiles, fusedFloats = l[0], l[1], l[2]
				if fusedFloats == 0 {
					s.N = min(s.N, 2) // so that it has few tiles
				}
				t.Run(fmt.Sprint(s.label(), "/", l), func(t *testing.T) { compare(t, s, winogradPlan, pool) })
			}
		}
	})
}

// TestWinogradThreads is TestThreads for this algorithm, with several groups and parts of the tiles.
func TestWinogradThreads(t *testing.T) {
	defer restore()()
	sharedFloats, partTiles = 1, 1
	eachLevel(t, func(t *testing.T) {
		for i, s := range winogradCases {
			if race.Enabled && i%5 != 0 {
				continue
			}
			if s.KH == 0 {
				s.KH, s.KW = 3, 3
			}
			fusedFloats = i % 2 << 21 // every other case is fused
			o := newOperands(s)
			var first [3][]float32
			for threads := 1; threads <= 3; threads++ {
				pool := par.New(threads)
				p := winogradPlan(s)
				got := [3][]float32{make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())}
				run := func() {
					p.Forward(pool, o.x, o.w, nil, got[0])
					p.BackwardInput(pool, o.w, o.dy, got[1])
					p.BackwardFilter(pool, o.x, o.dy, got[2])
				}
				run()
				if first[0] == nil {
					first = got
				}
				for i := range got {
					if !slices.Equal(got[i], first[i]) {
						t.Fatalf("%s, direction %d: %d threads give other bits", s.label(), i, threads)
					}
				}
				if n := allocs.PerRun(run); n != 0 {
					t.Errorf("%s: %v allocations", s.label(), n)
				}
				pool.Close()
			}
		}
	})
}

// TestWinogradError bounds what the algorithm loses. The transforms mix the pixels of a tile, so an error is relative to the
// magnitudes of the whole tile; on images and filters of independent elements these are alike. The root mean square of the
// errors must be below 4 times, the greatest below 40 times, half a unit in the last place of the magnitude that was added
// up. (Measured: 1.4 and 13 for
// 3×3, 2.5 and 34 for the gradient of 5×5 filters.)
func TestWinogradError(t *testing.T) {
	for _, c := range [][2]int{{3, 1}, {5, 1}, {3, 2}} {
		k := c[0]
		s := square(1, 12, 64, 64, k, c[1])
		o := newOperands(s)
		for i, x := range o.x {
			o.x[i] = max(0, x) // as after a ReLU
		}
		wy, wdx, wdw := newWant(s.SizeY()), newWant(s.SizeX()), newWant(s.SizeW())
		s.walk(func(xi, wi, yi int) {
			wy.add(yi, float64(o.x[xi])*float64(o.w[wi]))
			wdx.add(xi, float64(o.dy[yi])*float64(o.w[wi]))
			wdw.add(wi, float64(o.x[xi])*float64(o.dy[yi]))
		})
		eachLevel(t, func(t *testing.T) {
			p := winogradPlan(s)
			y, dx, dw := make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())
			p.Forward(nil, o.x, o.w, nil, y)
			p.BackwardInput(nil, o.w, o.dy, dx)
			p.BackwardFilter(nil, o.x, o.dy, dw)
			for _, r := range []struct {
				name string
				got  []float32
				want want
			}{{"y", y, wy}, {"dx", dx, wdx}, {"dw", dw, wdw}} {
				sum, worst := 0.0, 0.0
				for i, g := range r.got {
					e := math.Abs(float64(g)-r.want.sum[i]) / r.want.mag[i] / eps
					sum += e * e
					worst = max(worst, e)
				}
				rms := math.Sqrt(sum / float64(len(r.got)))
				t.Logf("%d×%d, stride %d, %s: root mean square %.2f, greatest %.1f", k, k, c[1], r.name, rms, worst)
				if rms > 4 || worst > 40 {
					t.Errorf("%d×%d, stride %d, %s: errors of %.2f (root mean square), %.1f (greatest)", k, k, c[1], r.name, rms, worst)
				}
			}
		})
	}
}

// TestTransforms holds each kernel to its matrix, in float64.
func TestTransforms(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		tr := newTransforms()
		rng := rand.New(rand.NewPCG(3, 4))
		tmp := make([]float32, tmpFloats)
		type expand struct {
			name string
			f    expandFunc
			m    [][]float64
		}
		expands := []expand{{"points", tr.points, points6()}}
		for r := 2; r <= 5; r++ {
			expands = append(expands, expand{fmt.Sprint("filter", r), tr.filter[r], filterPoints(r)})
		}
		expands = append(expands, expand{"stridedPoints", tr.stridedPoints, stridedPoints}, expand{"stridedBack", tr.stridedBack, stridedBack},
			expand{"stridedFilter", tr.stridedFilter, stridedFilter}, expand{"stridedGrad", tr.stridedGrad, stridedGrad})
		for i, e := range expands {
			r, p, n := len(e.m[0]), len(e.m), []int{32, 16, 19, 47}[i%4]
			for j0 := range r + 1 {
				for j1 := j0; j1 <= r; j1++ {
					var rows [6][]float32
					for i := range r {
						rows[i] = random(rng, r*(n+3))
					}
					point := n + 5
					dst, intact := guarded(p * p * point)
					e.f(&dst[0], point, &rows[0], n+3, j0, j1, n, &tmp[0])
					for i := range p * p {
						for c := range n {
							want := 0.0
							for y := range r {
								for x := j0; x < j1; x++ {
									want += e.m[i/p][y] * e.m[i%p][x] * float64(rows[y][(x-j0)*(n+3)+c])
								}
							}
							if g := dst[i*point+c]; !(math.Abs(float64(g)-want) < 2e-4) { // sums of 36 numbers of about 10
								t.Fatalf("%s, columns %d to %d: point %d, channel %d: %v, want %v", e.name, j0, j1, i, c, g, want)
							}
						}
					}
					if !intact() {
						t.Fatalf("%s wrote outside", e.name)
					}
				}
			}
		}
		type contract struct {
			name string
			f    contractFunc
			m    [][]float64
		}
		var contracts []contract
		for m := 2; m <= 5; m++ {
			contracts = append(contracts, contract{fmt.Sprint("result", m), tr.result[m], resultPoints(m)})
			if m < 5 {
				contracts = append(contracts, contract{fmt.Sprint("stridedResult", m), tr.strided[m], stridedResults[m]})
			}
		}
		for i, e := range contracts {
			m, p, n := len(e.m), len(e.m[0]), []int{32, 16, 19, 47}[i%4]
			src := random(rng, p*p*(n+1))
			bias := random(rng, n)
			for rows := 1; rows <= m; rows++ {
				for cols := 1; cols <= m; cols++ {
					for relu := range 2 {
						colStride := n + 2
						rowStride := m*colStride + 3
						dst, intact := guarded((rows-1)*rowStride + (cols-1)*colStride + n)
						e.f(&dst[0], rowStride, colStride, &src[0], n+1, rows, cols, n, &bias[0], relu, &tmp[0])
						written := 0
						for i := range rows {
							for j := range cols {
								for c := range n {
									want := float64(bias[c])
									for y := range p {
										for x := range p {
											want += e.m[i][y] * e.m[j][x] * float64(src[(p*y+x)*(n+1)+c])
										}
									}
									if relu == 1 {
										want = max(0, want)
									}
									if g := dst[i*rowStride+j*colStride+c]; !(math.Abs(float64(g)-want) < 2e-4) {
										t.Fatalf("%s %d×%d: (%d,%d), channel %d: %v, want %v", e.name, rows, cols, i, j, c, g, want)
									}
									written++
								}
							}
						}
						for _, v := range dst {
							if v == v {
								written--
							}
						}
						if !intact() || written != 0 {
							t.Fatalf("%s %d×%d wrote outside", e.name, rows, cols)
						}
					}
				}
			}
		}
	})
}
