package update

import "github.com/jouleml/joule/internal/isa"

func init() {
	table[isa.AVX2] = &[numRules]leaf{sgdAVX2, momentumAVX2, nesterovAVX2, adamAVX2, lionAVX2, rmsAVX2, rmsMomentumAVX2, rmsCenteredAVX2}
	table[isa.AVX512] = &[numRules]leaf{sgdAVX512, momentumAVX512, nesterovAVX512, adamAVX512, lionAVX512, rmsAVX512, rmsMomentumAVX512, rmsCenteredAVX512}
}
