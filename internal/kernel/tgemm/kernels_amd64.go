package tgemm

import "github.com/jouleml/joule/internal/isa"

// SplitRows splits rows rows, ld apart, by steps steps into a block.
func SplitRows(dst []uint32, src []float32, ld, rows, steps int) {
	_, _ = dst[steps*StepWords-1], src[(rows-1)*ld+steps*StepK-1]
	splitRowsAVX512(&dst[0], &src[0], 4*ld, rows, steps)
}

// SplitColumns splits cols columns of steps steps, whose rows are ld apart, into blocks.
func SplitColumns(dst []uint32, src []float32, ld, block, steps, cols int) {
	blocks := ceilDiv(cols, BlockRows)
	_, _ = dst[(blocks-1)*block+steps*StepWords-1], src[(steps*StepK-1)*ld+cols-1]
	splitColumnsAVX512(&dst[0], &src[0], 4*ld, 4*block, steps, blocks, 1<<(cols-(blocks-1)*BlockRows)-1)
}

// SplitAcross splits 16 columns of src, whose rows are ld apart, by steps steps into a block. The lower halves of pairs begin at src, the upper ones upper elements further on; next is the distance of steps.
func SplitAcross(scratch *[BlockRows * BlockRows]float32, dst []uint32, src []float32, ld, upper, next, steps int) {
	_, _ = dst[steps*StepWords-1], src[(steps-1)*next+upper+15*ld+15]
	splitAcrossAVX512(&dst[0], &src[0], 4*ld, 4*upper, 4*next, steps, scratch)
}

// Multiply sets pairs times 32 rows of 32 columns of c to the sums in (nil: none; ldi 0: one row for all) and the products of blocks.
func Multiply(c []float32, ldc int, in []float32, ldi int, a []uint32, aBlock int, b []uint32, bBlock, steps, pairs int) {
	last := pairs*Pair - 1
	_, _, _ = c[last*ldc+Pair-1], a[(2*pairs-1)*aBlock+steps*StepWords-1], b[bBlock+steps*StepWords-1]
	var from *float32
	if in != nil {
		_ = in[last*ldi+Pair-1]
		from = &in[0]
	}
	productsAMX(&c[0], from, &a[0], &b[0], 4*ldc, 4*ldi, 4*aBlock, 4*bBlock, steps, pairs, &isa.TileConfig)
}
