package conv

import "github.com/jouleml/joule/internal/isa"

func vecTransforms(l isa.Level) transforms {
	if l == isa.AVX512 {
		return transforms{16, pointsAVX512, filter3AVX512, filter4AVX512, result4AVX512, result3AVX512}
	}
	return transforms{8, pointsAVX2, filter3AVX2, filter4AVX2, result4AVX2, result3AVX2}
}

func depthwiseVec(l isa.Level) (depthwiseFunc, depthwiseFilterFunc) {
	if l == isa.AVX512 {
		return depthwiseAVX512, depthwiseFilterAVX512
	}
	return depthwiseAVX2, depthwiseFilterAVX2
}
