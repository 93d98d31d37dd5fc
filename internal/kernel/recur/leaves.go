package recur

import "github.com/jouleml/joule/internal/isa"

// leaves are what an instruction set has beside packages vec and gemm; recur_amd64.s says what each computes.
type leaves struct {
	units  [5]int // of a panel, by the number of gates
	stream [5]func(y, in, a, w *float32, k, yGate, inGate int)
	lstm   func(h, c, gate, sum, last *float32, n, gateStride, sumStride int)
	gru    func(h, third, gate, x, q, last *float32, n, gateStride, qStride int)

	lstmBack func(dx, dh, dc, ds, gate, c, last *float32, n, stride int)
	gruBack  func(dx, dq, dh, ds, gate, third, last *float32, n, stride int)

	touch   func(p *float32, lines int)
	publish func(p *int64, v int64)
}

// table is nil where plain Go is all there is.
var table [isa.AVX512 + 1]*leaves

// checkGates panics unless matrices have n units at the end of gates which are stride apart.
func checkGates(gates, stride, n int, xs ...[]float32) {
	for _, x := range xs {
		_ = x[(gates-1)*stride+n-1]
	}
}
