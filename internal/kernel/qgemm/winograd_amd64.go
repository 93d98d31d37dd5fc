package qgemm

// Kernels are by the kind of tile, and whether only the greatest of 2×2 is kept.
var (
	winoPointKernels = [4]func(dst *int16, pointStride int, src *uint8, line, pixel int, tmp *int16, blocks, tiles int){
		tile42: winoPoints42AVX2, tile44: winoPoints44AVX2, tile24: winoPoints24AVX2, tile22: winoPoints22AVX2,
	}
	winoByteKernels = [2][4]func(dst *uint8, rowStride, colStride int, src *int32, pointStride, tileStride int, scale, bias *float32, lo float32, tmp *int32, blocks, tiles int){
		{tile42: wino42AVX2, tile44: wino44AVX2, tile24: wino24AVX2, tile22: wino22AVX2},
		{tile42: winoMax42AVX2, tile44: winoMax44AVX2, tile24: winoMax24AVX2, tile22: winoMax22AVX2},
	}
	winoFloatKernels = [2][4]func(dst *float32, rowStride, colStride int, src *int32, pointStride, tileStride int, scale, bias *float32, lo float32, tmp *int32, blocks, tiles int){
		{tile42: winoFloat42AVX2, tile44: winoFloat44AVX2, tile24: winoFloat24AVX2, tile22: winoFloat22AVX2},
		{tile42: winoFloatMax42AVX2, tile44: winoFloatMax44AVX2, tile24: winoFloatMax24AVX2, tile22: winoFloatMax22AVX2},
	}
)

// lastPoint is the last point of a kind of tile.
func lastPoint(rows, cols int) int { return points*(rows+1) + cols + 1 }

// winoExpand takes the pixels of tiles side by side to points, which are point numbers apart. Lines of pixels are line bytes apart, pixels pixel.
func winoExpand(kind int, dst []int16, point int, src []uint8, line, pixel int, tmp []int16, blocks, tiles int) {
	rows, cols := shape(kind)
	_, _ = src[(rows+1)*line+((tiles-1)*cols+cols+1)*pixel+winoChannels*blocks-1], tmp[winoTmp-1]
	_ = dst[lastPoint(rows, cols)*point+tiles*blocks*winoChannels-1]
	winoPointKernels[kind](&dst[0], 2*point, &src[0], line, pixel, &tmp[0], blocks, tiles)
}

// winoProducts sets rows of sums, cols apart, to those of points, channels apart, times 16 columns of filters.
func winoProducts(sums []int32, points, u []int16, cols, channels, pairs, rows int) {
	_, _, _ = sums[(rows-1)*cols+winoWidth-1], points[(rows-1)*channels+2*pairs-1], u[2*winoWidth*pairs-1]
	winoProductsAVX2(&sums[0], &points[0], &u[0], 4*cols, 2*channels, pairs, rows)
}

// winoEnds panics where results, sums or factors are too short.
func winoEnds(kind int, most bool, dst int, t *winoResult, sums []int32, scale, offset []float32, tmp []int32, tiles int) int {
	rows, cols := shape(kind)
	_, _, _, _ = sums[lastPoint(rows, cols)*t.pointStride+(tiles-1)*t.tileStride+8*t.blocks-1], scale[8*t.blocks-1], offset[8*t.blocks-1], tmp[winoTmp/2-1]
	greatest := 0
	if most {
		rows, cols, greatest = rows/2, cols/2, 1
	}
	if (rows-1)*t.rowStride+(tiles*cols-1)*t.colStride+8*t.blocks > dst {
		panic("qgemm: results too short")
	}
	return greatest
}

// winoBytes takes the sums of tiles side by side to bytes.
func winoBytes(kind int, most bool, dst []uint8, t *winoResult, sums []int32, scale, offset []float32, lo float32, tmp []int32, tiles int) {
	greatest := winoEnds(kind, most, len(dst), t, sums, scale, offset, tmp, tiles)
	winoByteKernels[greatest][kind](&dst[0], t.rowStride, t.colStride, &sums[0], 4*t.pointStride, 4*t.tileStride, &scale[0], &offset[0], lo, &tmp[0], t.blocks, tiles)
}

// winoFloats takes them to floats.
func winoFloats(kind int, most bool, dst []float32, t *winoResult, sums []int32, scale, offset []float32, lo float32, tmp []int32, tiles int) {
	greatest := winoEnds(kind, most, len(dst), t, sums, scale, offset, tmp, tiles)
	winoFloatKernels[greatest][kind](&dst[0], 4*t.rowStride, 4*t.colStride, &sums[0], 4*t.pointStride, 4*t.tileStride, &scale[0], &offset[0], lo, &tmp[0], t.blocks, tiles)
}
