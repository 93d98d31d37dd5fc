package qgemm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// weightKinds are weights [k, n] that have all, some or no pairs whose sums leave 16 bits.
func weightKinds(r *rand.Rand, k, n int) map[string][]int8 {
	fill := func(f func(i int) int8) []int8 {
		w := make([]int8, k*n)
		for i := range w {
			w[i] = f(i)
		}
		return w
	}
	ends := [...]int8{-128, -127, 127, 0, 1, -1, 64, 65, -64, -65}
	return map[string][]int8{
		"normal":      layer(r, k, n),
		"uniform":     bytes8(r, k*n),
		"least":       fill(func(int) int8 { return -128 }),
		"greatest":    fill(func(int) int8 { return 127 }),
		"alternating": fill(func(i int) int8 { return []int8{127, -128}[i/n%2] }),
		"ends":        fill(func(int) int8 { return ends[r.IntN(len(ends))] }),
		"small":       fill(func(int) int8 { return int8(r.IntN(129) - 64) }),
		"few": fill(func(int) int8 {
			if r.IntN(40) == 0 {
				return ends[r.IntN(3)]
			}
			return int8(r.IntN(21) - 10)
		}),
	}
}

// activations are rows [m, k] at random and at the ends of their range.
func activations(r *rand.Rand, m, k int) []uint8 {
	a := bytesU(r, m*k)
	for i := range a {
		switch i / k % 4 {
		case 0:
			a[i] = 255
		case 1:
			a[i] = []uint8{0, 255}[r.IntN(2)]
		}
	}
	return a
}

// Pairs are safe, and groups add up to the weights that they were made of, in any number of ways.
func TestPairsAreSafe(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	for _, s := range [][2]int{{1, 1}, {4, 16}, {5, 17}, {64, 40}, {131, 33}} {
		k, n := s[0], s[1]
		for kind, w := range weightKinds(r, k, n) {
			for just := 1; just <= len(ways); just++ {
				what := fmt.Sprintf("[%d %d] %s, %d ways", k, n, kind, just)
				q := new(pairs)
				if !q.pack(w, k, n, just) { // as many are of no use
					continue
				}
				got, first := make([]int32, k*n), make([]int32, len(q.first))
				for panel := range len(q.starts) - 1 {
					for g := q.starts[panel]; g < q.starts[panel+1]; g++ {
						block, at := int(q.at[g])/pairBlock, int(q.at[g])%pairBlock
						way := ways[q.ways[block%len(q.ways)]]
						for j := range slim {
							b := q.b[(g*slim+j)*4:][:4]
							for _, pair := range [2][2]int{{int(b[0]), int(b[1])}, {int(b[2]), int(b[3])}} {
								plus, minus := max(pair[0], 0)+max(pair[1], 0), min(pair[0], 0)+min(pair[1], 0)
								if 255*plus > 1<<15-1 || 255*minus < -1<<15 {
									t.Fatalf("%s: pair %v", what, pair)
								}
							}
							for place, v := range b {
								row, col := block/len(q.ways)*pairBlock+at+int(way.order[place]), panel*slim+j
								if row >= k || col >= n {
									if v != 0 {
										t.Fatalf("%s: weight %d beyond the end", what, v)
									}
									continue
								}
								if way.turns(place) {
									v = -v
									first[col] += 255 * int32(v)
								}
								got[row*n+col] += int32(v)
							}
						}
					}
				}
				for i, v := range w {
					if got[i] != int32(v) {
						t.Fatalf("%s: weight %d is %d, want %d", what, i, got[i], v)
					}
				}
				if !slices.Equal(first, q.first) {
					t.Fatalf("%s: sums begin at %v, want %v", what, q.first, first)
				}
			}
		}
	}
}

// Products of weights with many, few and no unsafe pairs are exact on every instruction set, in any number of ways, for any number of threads, and when a plan's weights change.
func TestExtremeWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	for _, s := range []Spec{
		{M: 1, N: 1, K: 1}, {M: 7, N: 17, K: 33}, {M: 61, N: 48, K: 64}, {M: 100, N: 530, K: 20}, {M: 5, N: 16, K: 1100}, {M: 20, N: 10, K: 128},
		{M: 2 * 30, N: 24, K: 45, Conv: &Conv{H: 7, W: 8, C: 5, KH: 3, KW: 3, OH: 5, OW: 6, StrideH: 1, StrideW: 1}},
		{M: 2 * 16, N: 72, K: 36, Conv: &Conv{H: 8, W: 8, C: 4, KH: 3, KW: 3, OH: 8, OW: 8, StrideH: 1, StrideW: 1, PadTop: 1, PadLeft: 1, Zero: 255}, Pool: true},
	} {
		a := activations(r, s.M, s.K)
		if s.Conv != nil {
			a = activations(r, 2*s.Conv.H, s.Conv.W*s.Conv.C)
		}
		scale, offset := make([]float32, s.N), make([]float32, s.N)
		for j := range scale {
			scale[j], offset[j] = 0.0005, 128
		}
		kinds := weightKinds(r, s.K, s.N)
		want, want8 := map[string][]float32{}, map[string][]uint8{}
		ones := make([]float32, s.N)
		for j := range ones {
			ones[j] = 1
		}
		restore := isa.Use(isa.Portable)
		for kind, w := range kinds {
			p := build(s, false, false)
			p.Set(w, ones, make([]float32, s.N))
			y, y8 := make([]float32, s.M*s.N), make([]uint8, s.M*s.N)
			p.RunFloat(nil, y, a)
			p.Set(w, scale, offset)
			p.Run(nil, y8, a)
			want[kind], want8[kind] = y, y8
		}
		restore()
		for _, l := range isa.ByteLevels()[1:] {
			restore := isa.Use(l)
			for i, p := range plans(s) {
				check := func(kind, how string) {
					t.Helper()
					pool := par.New(1 + i%2)
					y, y8 := make([]float32, s.M*s.N), make([]uint8, s.M*s.N)
					copy(p.scale, ones)
					clear(p.offset)
					p.RunFloat(pool, y, a)
					copy(p.scale, scale)
					copy(p.offset, offset)
					p.Run(pool, y8, a)
					pool.Close()
					if !slices.Equal(y, want[kind]) || !slices.Equal(y8, want8[kind]) {
						t.Fatalf("%v, %s, %s weights, %s: %+v", l, p.how(), kind, how, s)
					}
				}
				for kind, w := range kinds {
					p.Set(w, scale, offset)
					check(kind, "as planned")
					if p.level != avx2 || p.direct != nil || p.algorithm != nil {
						continue
					}
					for just := 1; just <= len(ways); just += 1 + just/3 {
						if p.setPairs(w, just) {
							check(kind, fmt.Sprint(len(p.pairs.ways), " ways"))
						}
					}
				}
			}
			restore()
		}
	}
}

// Weights like those of layers are multiplied in pairs, and those that fill their range evenly are not.
func TestPairsAreChosen(t *testing.T) {
	r := rand.New(rand.NewPCG(25, 26))
	if !new(pairs).pack(layer(r, 384, 128), 384, 128, 0) {
		t.Error("normal weights are widened")
	}
	if new(pairs).pack(bytes8(r, 384*128), 384, 128, 0) {
		t.Error("uniform weights are in pairs")
	}
}
