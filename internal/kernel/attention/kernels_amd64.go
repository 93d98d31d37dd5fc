package attention

import "github.com/jouleml/joule/internal/kernel/tgemm"

// foldRows folds 16 rows of 32·steps scores, ld apart and to be multiplied by scale, into top, total and factor (what earlier results are to be multiplied by) and sets dst to the parts of their weights.
func foldRows(dst []uint32, s []float32, ld, steps int, top, total, factor []float32, scale float32) {
	_, _ = dst[steps*tgemm.StepWords-1], s[15*ld+steps*tgemm.StepK-1]
	_, _, _ = top[15], total[15], factor[15]
	foldForAMX(&dst[0], &s[0], 4*ld, steps, &top[0], &total[0], &factor[0], scale)
}

// gradientRows turns rows 0 and 16 of 32·steps scores s, to be multiplied by scale, and of gradients d of weights, ld apart, into the parts of weights in columns (pT) and of gradients of scores in rows (ds) and columns (dsT).
// Blocks of rows are rowBlock words apart, those of columns colBlock. lse and delta are those of rows from 0 on.
func gradientRows(pT, ds, dsT []uint32, s, d []float32, ld, rowBlock, colBlock, steps int, lse, delta []float32, scale float32) {
	last := (2*steps-1)*colBlock + 2*tgemm.StepWords/3 + tgemm.BlockRows - 1
	_, _, _ = pT[last], dsT[last], ds[rowBlock+steps*tgemm.StepWords-tgemm.StepWords/3+tgemm.BlockRows-1]
	_, _, _, _ = s[16*ld+steps*tgemm.StepK-1], d[16*ld+steps*tgemm.StepK-1], lse[16], delta[16]
	gradientsForAMX(&pT[0], &ds[0], &dsT[0], &s[0], &d[0], 4*16*ld, 4*rowBlock, 4*colBlock, steps, &lse[0], &delta[0], scale)
}
