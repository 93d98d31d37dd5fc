package conv

import "github.com/jouleml/joule/internal/isa"

func vecTransforms(l isa.Level) transforms {
	if l == isa.AVX512 {
		return transforms{
			pointsAVX512,
			[...]expandFunc{2: filter2AVX512, filter3AVX512, filter4AVX512, filter5AVX512},
			[...]contractFunc{2: result2AVX512, result3AVX512, result4AVX512, result5AVX512},
			stridedPointsAVX512, stridedBackAVX512, stridedFilterAVX512, stridedGradAVX512,
			[...]contractFunc{2: stridedResult2AVX512, stridedResult3AVX512, stridedResult4AVX512},
		}
	}
	return transforms{
		pointsAVX2,
		[...]expandFunc{2: filter2AVX2, filter3AVX2, filter4AVX2, filter5AVX2},
		[...]contractFunc{2: result2AVX2, result3AVX2, result4AVX2, result5AVX2},
		stridedPointsAVX2, stridedBackAVX2, stridedFilterAVX2, stridedGradAVX2,
		[...]contractFunc{2: stridedResult2AVX2, stridedResult3AVX2, stridedResult4AVX2},
	}
}

func depthwiseVec(l isa.Level) (depthwiseFunc, depthwiseFilterFunc) {
	if l == isa.AVX512 {
		return depthwiseAVX512, depthwiseFilterAVX512
	}
	return depthwiseAVX2, depthwiseFilterAVX2
}

func copyGroupVec(dst, src *float32, srcStride, pixels int) {
	copyGroupAVX2(dst, src, srcStride, pixels)
}
