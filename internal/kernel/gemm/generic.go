package gemm

// Number is an element type that Generic multiplies.
type Number interface {
	~float32 | ~float64 | ~int8 | ~uint8 | ~int32 | ~int64
}

// Generic computes the products of s in plain Go, for element types that have no kernel. Sums run over k in increasing order
// in the arithmetic of T (integers wrap). It does no epilogue: s must not ask for Bias, Residual, Act or PackedB.
func Generic[T Number](s Spec, a, b, c []T) {
	if s.Bias || s.Residual || s.Act != None || s.PackedB {
		panic("gemm: Generic: no epilogue")
	}
	s = s.complete()
	if s.M == 0 || s.N == 0 {
		return
	}
	for z := range s.Batch {
		a, b, c := a[z*s.StrideA:], b[z*s.StrideB:], c[z*s.StrideC:]
		aRow, aCol := s.LDA, 1
		if s.TransA {
			aRow, aCol = 1, s.LDA
		}
		for i := range s.M {
			row := c[i*s.LDC:][:s.N]
			if !s.Accumulate {
				clear(row)
			}
			if s.K == 0 {
				continue
			}
			if s.TransB {
				for j := range row {
					sum := row[j]
					for k, x := range b[j*s.LDB:][:s.K] {
						sum += a[i*aRow+k*aCol] * x
					}
					row[j] = sum
				}
				continue
			}
			for k := range s.K {
				x := a[i*aRow+k*aCol]
				for j, y := range b[k*s.LDB:][:s.N] {
					row[j] += x * y
				}
			}
		}
	}
}
