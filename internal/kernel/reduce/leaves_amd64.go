package reduce

import "github.com/jouleml/joule/internal/isa"

func init() {
	table[isa.AVX2] = &leaves{
		row:            [numOps]rowFunc{sumRowAVX2, sumRowAVX2, sumSqRowAVX2, prodRowAVX2, maxRowAVX2, minRowAVX2},
		col:            [numOps]colFunc{sumColsAVX2, sumColsAVX2, sumSqColsAVX2, prodColsAVX2, maxColsAVX2, minColsAVX2},
		devRow:         devRowAVX2,
		dotRow:         dotRowAVX2,
		sumExpRow:      sumExpRowAVX2,
		expSumRow:      expSumRowAVX2,
		mulAdd:         mulAddAVX2,
		softmaxGrad:    softmaxGradAVX2,
		logSoftmaxGrad: logSoftmaxGradAVX2,
		centredDotRow:  centredDotRowAVX2,
		addTo:          addToAVX2,
		normRow:        normRowAVX2,
		normRowGrad:    normRowGradAVX2,
		normGammaAdd:   normGammaAddAVX2,
		norm:           [2]func(dst, a, m, s, b []float32){normAVX2, normReluAVX2},
		shiftSums:      shiftSumsAVX2,
		batchSums:      batchSumsAVX2,
		batchSumsRelu:  batchSumsReluAVX2,
		batchGrad:      batchGradAVX2,
		batchGradRelu:  batchGradReluAVX2,
	}
	table[isa.AVX512] = &leaves{
		row:            [numOps]rowFunc{sumRowAVX512, sumRowAVX512, sumSqRowAVX512, prodRowAVX512, maxRowAVX512, minRowAVX512},
		col:            [numOps]colFunc{sumColsAVX512, sumColsAVX512, sumSqColsAVX512, prodColsAVX512, maxColsAVX512, minColsAVX512},
		devRow:         devRowAVX512,
		dotRow:         dotRowAVX512,
		sumExpRow:      sumExpRowAVX512,
		expSumRow:      expSumRowAVX512,
		mulAdd:         mulAddAVX512,
		softmaxGrad:    softmaxGradAVX512,
		logSoftmaxGrad: logSoftmaxGradAVX512,
		centredDotRow:  centredDotRowAVX512,
		addTo:          addToAVX512,
		normRow:        normRowAVX512,
		normRowGrad:    normRowGradAVX512,
		normGammaAdd:   normGammaAddAVX512,
		norm:           [2]func(dst, a, m, s, b []float32){normAVX512, normReluAVX512},
		shiftSums:      shiftSumsAVX512,
		batchSums:      batchSumsAVX512,
		batchSumsRelu:  batchSumsReluAVX512,
		batchGrad:      batchGradAVX512,
		batchGradRelu:  batchGradReluAVX512,
	}
}
