package convpool

import "github.com/jouleml/joule/internal/isa"

func vecTransforms(l isa.Level, cin, cout int) transforms {
	t := transforms{pointsAVX2, filtersAVX2, pooledAVX2}
	if l == isa.AVX512 && cin%16 == 0 {
		t.points = pointsAVX512
	}
	if l == isa.AVX512 && cout%16 == 0 {
		t.filters, t.pooled = filtersAVX512, pooledAVX512
	}
	return t
}

func vecDirect(l isa.Level) []directKernel {
	narrow := directKernel{16, true, directAVX2}
	if l == isa.AVX512 {
		return []directKernel{{32, true, directAVX512}, narrow}
	}
	return []directKernel{narrow}
}

func vecLanes(l isa.Level, cout int) (width int, f lanesFunc) {
	if l == isa.AVX512 && cout >= 16 {
		return 16, lanesAVX512
	}
	return 8, lanesAVX2
}

func vecStrips(l isa.Level, n int, tall bool) []strip {
	wide, narrow, rows := combine1x96AVX2, combine1x48AVX2, 1
	switch {
	case l == isa.AVX512 && tall:
		wide, narrow, rows = combine3x96AVX512, combine3x48AVX512, 3
	case l == isa.AVX512:
		wide, narrow = combine1x96AVX512, combine1x48AVX512
	}
	var ss []strip
	for r := 0; r < 3; r += rows {
		c := 0
		for ; c+96 <= n; c += 96 {
			ss = append(ss, strip{r, c, wide})
		}
		if c < n {
			ss = append(ss, strip{r, c, narrow})
		}
	}
	return ss
}
