package qgemm

// weave sets pairs of 16 times blocks numbers of a and b.
func weave(dst, a, b []int16, blocks int) {
	_, _, _ = dst[32*blocks-1], a[16*blocks-1], b[16*blocks-1]
	weaveAVX2(&dst[0], &a[0], &b[0], blocks)
}

// greyEnds panics where an operand is too short.
func greyEnds(most bool, dst, next int, x, pairs []int16, line, step int, b []int16, scale, offset []float32, n int) {
	rows, end := 3, (n-1)*step+3 // and what is beside the last tap
	if most {
		rows, end = 4, end+1
	}
	cols := len(scale)
	_, _, _, _ = x[(rows-1)*line+end], pairs[2*((rows-3)*line+end)-1], b[2*cols*greyPairs-1], offset[cols-1]
	if (n-1)*next+cols > dst {
		panic("qgemm: results too short")
	}
}

// greyKernel is the kernel for 16 filters or for 8, of results or of the greatest of four.
func greyKernel[F any](most bool, cols int, of16, of8, most16, most8 F) F {
	switch eight := cols < slim; {
	case most && eight:
		return most8
	case most:
		return most16
	case eight:
		return of8
	}
	return of16
}

// greyBytes computes n results, next apart, of as many filters as there are scales, 16 or 8, as bytes; patches are step pixels apart.
func greyBytes(most bool, dst []uint8, next int, x, pairs []int16, line, step int, b []int16, scale, offset []float32, lo float32, n int) {
	greyEnds(most, len(dst), next, x, pairs, line, step, b, scale, offset, n)
	kernel := greyKernel(most, len(scale), greyAVX2, greySlimAVX2, greyMaxAVX2, greyMaxSlimAVX2)
	kernel(&dst[0], next, &x[0], &pairs[0], 2*line, 2*step, &b[0], &scale[0], &offset[0], lo, n)
}

// greyFloats computes them as floats.
func greyFloats(most bool, dst []float32, next int, x, pairs []int16, line, step int, b []int16, scale, offset []float32, lo float32, n int) {
	greyEnds(most, len(dst), next, x, pairs, line, step, b, scale, offset, n)
	kernel := greyKernel(most, len(scale), greyFloatAVX2, greyFloatSlimAVX2, greyFloatMaxAVX2, greyFloatMaxSlimAVX2)
	kernel(&dst[0], 4*next, &x[0], &pairs[0], 2*line, 2*step, &b[0], &scale[0], &offset[0], lo, n)
}
