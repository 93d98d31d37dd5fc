package move

import "github.com/jouleml/joule/internal/isa"

func init() {
	table[isa.AVX2] = &leaves{transpose4: transpose8, addTo: addToAVX2}
	table[isa.AVX512] = &leaves{transpose4: transpose8, addTo: addToAVX512}
}

func transpose8(dst, src []uint32, ds, ss, rows, cols int) (int, int) {
	rows, cols = rows&^7, cols&^7
	if rows == 0 || cols == 0 {
		return 0, 0
	}
	_, _ = src[(rows-1)*ss+cols-1], dst[(cols-1)*ds+rows-1] // the assembly does not check
	transposeAVX2(&dst[0], &src[0], ds, ss, rows, cols)
	return rows, cols
}
