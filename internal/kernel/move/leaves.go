package move

import "github.com/jouleml/joule/internal/isa"

// leaves is every function that comes in several versions, for one instruction set.
type leaves struct {
	// transpose4 transposes as many 4-byte elements as it can, dst[j*ds+i] = src[i*ss+j] for i < rows and j < cols, and returns how many
	// rows and columns it did.
	transpose4 func(dst, src []uint32, ds, ss, rows, cols int) (doneRows, doneCols int)
	addTo      func(dst, a, b []float32)
}

// table is filled by init functions: the portable entry always, others where the CPU type has them.
var table [isa.AVX512 + 1]*leaves

func init() {
	table[isa.Portable] = &leaves{
		transpose4: func([]uint32, []uint32, int, int, int, int) (int, int) { return 0, 0 },
		addTo: func(dst, a, b []float32) {
			for i, x := range a {
				dst[i] = x + b[i]
			}
		},
	}
}
