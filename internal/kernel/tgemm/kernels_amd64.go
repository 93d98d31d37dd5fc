package tgemm

import "github.com/jouleml/joule/internal/isa"

// inRows splits rows rows, ld apart, by steps steps into a block.
func inRows(dst []uint32, src []float32, ld, rows, steps int) {
	_, _ = dst[steps*stepWords-1], src[(rows-1)*ld+steps*stepK-1]
	splitRowsAVX512(&dst[0], &src[0], 4*ld, rows, steps)
}

// inColumns splits cols columns of steps steps, whose rows are ld apart, into blocks.
func inColumns(dst []uint32, src []float32, ld, block, steps, cols int) {
	blocks := ceilDiv(cols, blockRows)
	_, _ = dst[(blocks-1)*block+steps*stepWords-1], src[(steps*stepK-1)*ld+cols-1]
	splitColumnsAVX512(&dst[0], &src[0], 4*ld, 4*block, steps, blocks, 1<<(cols-(blocks-1)*blockRows)-1)
}

// across splits 16 columns of src, whose rows are ld apart, by steps steps into a block. The lower halves of pairs begin at src, the upper ones upper elements further on; next is the distance of steps.
func across(w *worker, dst []uint32, src []float32, ld, upper, next, steps int) {
	_, _ = dst[steps*stepWords-1], src[(steps-1)*next+upper+15*ld+15]
	splitAcrossAVX512(&dst[0], &src[0], 4*ld, 4*upper, 4*next, steps, &w.scratch)
}

// multiply sets pairs times 32 rows of 32 columns of c to the sums in (nil: none; ldi 0: one row for all) and the products of blocks.
func multiply(c []float32, ldc int, in []float32, ldi int, a []uint32, aBlock int, b []uint32, bBlock, steps, pairs int) {
	last := pairs*pair - 1
	_, _, _ = c[last*ldc+pair-1], a[(2*pairs-1)*aBlock+steps*stepWords-1], b[bBlock+steps*stepWords-1]
	var from *float32
	if in != nil {
		_ = in[last*ldi+pair-1]
		from = &in[0]
	}
	productsAMX(&c[0], from, &a[0], &b[0], 4*ldc, 4*ldi, 4*aBlock, 4*bBlock, steps, pairs, &isa.TileConfig)
}
