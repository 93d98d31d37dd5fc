package gemm

import "github.com/jouleml/joule/internal/isa"

//go:generate sh -c "cd _asm && go run ."

// maxRows is the height of the tallest tile of any version.
const maxRows = 8

// Seg is a run of K indices whose elements of A lie at a constant distance: element k of the run is at Off + k·AStride from
// the start of its row of A.
type Seg struct {
	Off int // in elements, added to every row offset
	Len int // > 0
}

// Act is what a product does to its finished elements.
type Act uint64

// The activations.
const (
	None Act = iota
	ReLU     // max(0, x); a NaN stays a NaN
)

func (a Act) apply(x float32) float32 {
	if a == ReLU && x < 0 {
		return 0
	}
	return x
}

// Tile is one call of the tile kernel, the loop from which every f32 product and convolution of Joule is built. For each row r
// in [0, len(AOff)) and each column j in [0, Cols):
//
//	acc := Bias[j] + In[COff[r]+j]           // each 0 if its slice is nil
//	k := 0
//	for _, s := range Segs {
//		for i := range s.Len {
//			acc = fma(A[AOff[r]+s.Off+i*AStride], B[k*LDB+j], acc)
//			k++
//		}
//	}
//	C[COff[r]+j] = act(acc)
//
// So A is read through a table of rows and a list of segments, in place: rows of a matrix (AOff[r] = r·lda, one segment of K),
// rows of a transposed matrix (AOff[r] = r, AStride = lda), or the patches of an NHWC image (AOff[r] = the first element of
// output pixel r's patch, one segment of kw·Cin elements for each of the kh lines of the filter). B is either a row-major
// matrix read in place or a panel made by PackB. In may be C itself, which accumulates, or a residual laid out as C.
// The order of the additions to an element depends on neither len(AOff) nor on where its row stands in the table, so work
// may be cut anywhere between rows and columns without a change of a bit.
//
// A Tile is also scratch memory of the kernel: one goroutine at a time. Make it once (it escapes to the heap), fill in what
// changes, Run. All slices are indexed as above and nothing outside of these elements is read or written.
type Tile struct {
	A    []float32
	AOff []int // one entry a row
	Segs []Seg // at least one
	B    []float32
	C    []float32
	COff []int     // one entry a row, as long as AOff
	In   []float32 // nil, or indexed as C
	Bias []float32 // nil, or Cols elements
	Act  Act

	row     int // first row of this call
	tiles   int // tiles of this call
	tail    int // columns in the last vector
	aStride int // in bytes
	bStride int
	scratch [4]uintptr // of the assembly
	across  int        // 1: Columns

	// Columns promises AOff[r] = AOff[0]+r: rows are neighbours, as in a transposed matrix. It changes the speed alone.
	Columns bool

	AStride int // elements from one K index to the next in A
	LDB     int // elements from one K index to the next in B
	Cols    int // columns, 1 to NR(), or a multiple of NR() if Panel says where B goes on

	panels int        // of this call
	step   int        // from one to the next, in bytes
	left   int        // tiles of a panel; of the assembly, as what follows
	cur    [4]uintptr // B, C, In, Bias

	// Panel is the elements from NR() columns of B to the next NR(), where Cols is more than NR(): NR() if B is a row-major
	// matrix, LDB times its rows if it is packed.
	Panel int
}

// NR is the greatest number of columns of a Tile, and the width of a packed panel, at the current instruction set.
func NR() int { return nr(isa.Current()) }

// Lanes is the number of floats in a vector at the current instruction set: columns cost as if rounded up to it (to 8 where
// there are no more than 16).
func Lanes() int { return lanes(isa.Current()) }

func nr(l isa.Level) int {
	if l == isa.AVX512 {
		return 64
	}
	return 16
}

func lanes(l isa.Level) int {
	if l == isa.AVX512 {
		return 16
	}
	return 8
}

// TileRows is the height of a full tile of the given number of columns: a caller that chooses how many rows to give to one
// Run does well to choose a multiple of it.
func TileRows(cols int) int { return tileRows(isa.Current(), cols) }

func tileRows(l isa.Level, cols int) int {
	if l == isa.AVX512 && cols <= 48 && !narrow(l, cols) {
		return 8
	}
	return 6
}

// narrow says whether a tile of that many columns is computed with 256-bit vectors at l: always with AVX2, and with AVX-512 where a 512-bit multiply-add is two passes (isa.Wide) or would
// be half empty.
func narrow(l isa.Level, cols int) bool {
	return l == isa.AVX2 || cols <= 8 || cols <= 16 && !isa.Wide()
}

// Run computes all rows, in tiles of nearly equal height. No rows, or no columns, is no work.
func (t *Tile) Run() {
	rows := len(t.AOff)
	if rows == 0 || t.Cols == 0 {
		return
	}
	t.check()
	level := isa.Current()
	if level == isa.Portable {
		tileGo(t)
		return
	}
	w, cols := lanes(level), t.Cols
	t.panels = 1
	if full := nr(level); cols > full {
		t.panels, t.step, cols = cols/full, 4*t.Panel, full
	}
	if narrow(level, cols) {
		w = 8
	}
	t.tail = (cols-1)%w + 1
	t.aStride, t.bStride, t.across = 4*t.AStride, 4*t.LDB, 0
	if t.Columns {
		t.across = 1
	}
	high := tileRows(level, cols)
	n := (rows + high - 1) / high
	h := rows / n
	// rows = n·h + more: the first tiles are one row taller.
	more := rows - n*h
	if more > 0 {
		panels := t.panels
		t.row, t.tiles = 0, more
		tileKernel(level, h+1, cols)(t)
		t.panels = panels
	}
	t.row, t.tiles = more*(h+1), n-more
	tileKernel(level, h, cols)(t)
}

// check panics where the assembly would read or write outside of a slice because of a caller's bug that is cheap to see.
func (t *Tile) check() {
	k := 0
	for _, s := range t.Segs {
		if s.Len <= 0 {
			panic("gemm: Tile: empty segment")
		}
		k += s.Len
	}
	full, cols, panels := NR(), t.Cols, 0 // panels after the first
	if cols > full {
		cols, panels = full, cols/full-1
	}
	switch {
	case k == 0:
		panic("gemm: Tile: no segments")
	case t.Cols < 0 || panels > 0 && (t.Cols%full != 0 || t.Panel < full):
		panic("gemm: Tile: Cols out of range")
	case t.Columns && t.AOff[len(t.AOff)-1] != t.AOff[0]+len(t.AOff)-1:
		panic("gemm: Tile: Columns, but rows are not neighbours")
	case len(t.COff) != len(t.AOff):
		panic("gemm: Tile: AOff and COff differ in length")
	case t.LDB < cols:
		panic("gemm: Tile: LDB less than Cols")
	case len(t.B) < panels*t.Panel+(k-1)*t.LDB+cols:
		panic("gemm: Tile: B too short")
	case t.Bias != nil && len(t.Bias) < t.Cols:
		panic("gemm: Tile: Bias too short")
	case t.In != nil && len(t.In) < len(t.C):
		panic("gemm: Tile: In shorter than C")
	}
	if a, c := t.AOff[0], t.COff[0]; uint(a+t.Segs[0].Off) >= uint(len(t.A)) || uint(c+t.Cols) > uint(len(t.C)) {
		panic("gemm: Tile: offset out of range")
	}
}

// tileGo is Run in plain Go: the meaning of the assembly, and what runs where there is none.
func tileGo(t *Tile) {
	full := nr(isa.Portable)
	for j0 := 0; j0 < t.Cols; j0 += full {
		b := t.B[j0/full*t.Panel:]
		for r, a0 := range t.AOff {
			c := t.C[t.COff[r]+j0:][:min(full, t.Cols-j0)]
			var acc [16]float32 // NR at isa.Portable
			row := acc[:len(c)]
			if t.Bias != nil {
				copy(row, t.Bias[j0:])
			}
			if t.In != nil {
				for j, x := range t.In[t.COff[r]+j0:][:len(c)] {
					row[j] += x
				}
			}
			k := 0
			for _, s := range t.Segs {
				for i := range s.Len {
					a := t.A[a0+s.Off+i*t.AStride]
					for j, b := range b[k*t.LDB:][:len(c)] {
						row[j] += a * b
					}
					k++
				}
			}
			for j, x := range row {
				c[j] = t.Act.apply(x)
			}
		}
	}
}
