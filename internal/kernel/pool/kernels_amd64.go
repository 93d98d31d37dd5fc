package pool

import "github.com/jouleml/joule/internal/isa"

func vecKernels(l isa.Level) kernels {
	if l == isa.AVX512 {
		return kernels{maxAVX512, sumAVX512, pickAVX512, scatterAVX512, spreadAVX512}
	}
	return kernels{maxAVX2, sumAVX2, pickAVX2, scatterAVX2, spreadAVX2}
}
