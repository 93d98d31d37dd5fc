package recur

import "github.com/jouleml/joule/internal/isa"

type streaming = func(y, in, a, w *float32, k, yGate, inGate int)

func init() {
	table[isa.AVX2] = &leaves{
		units: [5]int{1: 64, 3: 32, 4: 16}, stream: [5]streaming{1: stream1AVX2, 3: stream3AVX2, 4: stream4AVX2},
		lstm: lstmAVX2, gru: gruAVX2, lstmBack: lstmBackAVX2, gruBack: gruBackAVX2, touch: touchAVX2, publish: publishAVX2,
	}
	table[isa.AVX512] = &leaves{
		units: [5]int{1: 64, 3: 64, 4: 64}, stream: [5]streaming{1: stream1AVX512, 3: stream3AVX512, 4: stream4AVX512},
		lstm: lstmAVX512, gru: gruAVX512, lstmBack: lstmBackAVX512, gruBack: gruBackAVX512, touch: touchAVX2, publish: publishAVX2,
	}
}
