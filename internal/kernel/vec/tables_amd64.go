package vec

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
)

func init() {
	tables[isa.AVX2] = &table{
		unary: [NumUnary]UnaryFunc{negAVX2, absAVX2, signAVX2, squareAVX2, sqrtAVX2, rsqrtAVX2, recipAVX2, expAVX2, expm1AVX2, logAVX2,
			log1pAVX2, tanhAVX2, sigmoidAVX2, softplusAVX2, erfAVX2, trig(sinAVX2, math.Sin), trig(cosAVX2, math.Cos), floorAVX2, ceilAVX2,
			roundAVX2, reluAVX2},
		binaryVV:     [NumBinary]BinaryVVFunc{addVVAVX2, subVVAVX2, mulVVAVX2, divVVAVX2, maxVVAVX2, minVVAVX2, powVVAVX2, reluGradVVAVX2},
		binaryVS:     [NumBinary]BinaryVSFunc{addVSAVX2, subVSAVX2, mulVSAVX2, divVSAVX2, maxVSAVX2, minVSAVX2, powVSAVX2, reluGradVSAVX2},
		binarySV:     [NumBinary]BinaryVSFunc{addVSAVX2, subSVAVX2, mulVSAVX2, divSVAVX2, maxVSAVX2, minVSAVX2, powSVAVX2, reluGradSVAVX2},
		mulAddVVV:    mulAddVVVAVX2,
		mulAddVSV:    mulAddVSVAVX2,
		mulAddVSS:    mulAddVSSAVX2,
		compareVV:    [NumCompare]compareVVPart{eqVVAVX2, neVVAVX2, ltVVAVX2, leVVAVX2, gtVVAVX2, geVVAVX2},
		compareVS:    [NumCompare]compareVSPart{eqVSAVX2, neVSAVX2, ltVSAVX2, leVSAVX2, gtVSAVX2, geVSAVX2},
		selectVV:     selectVVAVX2,
		selectVS:     selectVSAVX2,
		selectSV:     selectSVAVX2,
		toBFloat16:   toBFloat16AVX2,
		fromBFloat16: fromBFloat16AVX2,
		toInt32:      toInt32AVX2,
		fromInt32:    fromInt32AVX2,
		fromUint8:    fromUint8AVX2,
		fromInt8:     fromInt8AVX2,
	}
	tables[isa.AVX512] = &table{
		unary: [NumUnary]UnaryFunc{negAVX512, absAVX512, signAVX512, squareAVX512, sqrtAVX512, rsqrtAVX512, recipAVX512, expAVX512, expm1AVX512, logAVX512,
			log1pAVX512, tanhAVX512, sigmoidAVX512, softplusAVX512, erfAVX512, trig(sinAVX512, math.Sin), trig(cosAVX512, math.Cos), floorAVX512, ceilAVX512,
			roundAVX512, reluAVX512},
		binaryVV:     [NumBinary]BinaryVVFunc{addVVAVX512, subVVAVX512, mulVVAVX512, divVVAVX512, maxVVAVX512, minVVAVX512, powVVAVX512, reluGradVVAVX512},
		binaryVS:     [NumBinary]BinaryVSFunc{addVSAVX512, subVSAVX512, mulVSAVX512, divVSAVX512, maxVSAVX512, minVSAVX512, powVSAVX512, reluGradVSAVX512},
		binarySV:     [NumBinary]BinaryVSFunc{addVSAVX512, subSVAVX512, mulVSAVX512, divSVAVX512, maxVSAVX512, minVSAVX512, powSVAVX512, reluGradSVAVX512},
		mulAddVVV:    mulAddVVVAVX512,
		mulAddVSV:    mulAddVSVAVX512,
		mulAddVSS:    mulAddVSSAVX512,
		compareVV:    [NumCompare]compareVVPart{eqVVAVX512, neVVAVX512, ltVVAVX512, leVVAVX512, gtVVAVX512, geVVAVX512},
		compareVS:    [NumCompare]compareVSPart{eqVSAVX512, neVSAVX512, ltVSAVX512, leVSAVX512, gtVSAVX512, geVSAVX512},
		selectVV:     selectVVAVX512,
		selectVS:     selectVSAVX512,
		selectSV:     selectSVAVX512,
		toBFloat16:   toBFloat16AVX512,
		fromBFloat16: fromBFloat16AVX512,
		toInt32:      toInt32AVX512,
		fromInt32:    fromInt32AVX512,
		fromUint8:    fromUint8AVX512,
		fromInt8:     fromInt8AVX512,
	}
}

// trig completes a leaf that stops before arguments too large for it: package math, whose reduction is exact, does those.
func trig(leaf func(dst, a []float32) int, f func(float64) float64) UnaryFunc {
	return func(dst, a []float32) {
		n := min(len(dst), len(a))
		dst, a = dst[:n], a[:n]
		for {
			done := leaf(dst, a)
			dst, a = dst[done:], a[done:]
			if len(a) == 0 {
				return
			}
			n := min(16, len(a))
			for i, x := range a[:n] {
				dst[i] = float32(f(float64(x)))
			}
			dst, a = dst[n:], a[n:]
		}
	}
}
