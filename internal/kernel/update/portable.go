package update

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
)

// table is filled by init functions: the portable entry always, others where the CPU type has them.
var table [isa.AVX512 + 1]*[numRules]leaf

// A conversion around each product keeps the compiler from fusing it with a sum, which some CPUs would do.

func init() {
	table[isa.Portable] = &[numRules]leaf{
		sgd: func(w, grad, _, _, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				w[i] = y - float32(g*c[2])
			}
		},
		momentum: func(w, grad, m, _, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				m[i] = float32(m[i]*c[3]) - float32(g*c[2])
				w[i] = y + m[i]
			}
		},
		nesterov: func(w, grad, m, _, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				d := float32(g * c[2])
				m[i] = float32(m[i]*c[3]) - d
				w[i] = y + (float32(m[i]*c[3]) - d)
			}
		},
		adam: func(w, grad, m, v, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				m[i] += float32((g - m[i]) * c[3])
				v[i] += float32((float32(g*g) - v[i]) * c[4])
				w[i] = y - float32(m[i]*c[2])/(sqrt(v[i])+c[5])
			}
		},
		lion: func(w, grad, m, _, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				u := float32(m[i]*c[3]) + float32(g*c[4])
				switch {
				case u > 0:
					u = 1
				case u < 0:
					u = -1
				}
				m[i] = float32(m[i]*c[5]) + float32(g*c[6])
				w[i] = y - float32(u*c[2])
			}
		},
		rms: func(w, grad, v, _, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				v[i] = float32(v[i]*c[3]) + float32(float32(g*g)*c[4])
				w[i] = y - float32(g*c[2])/sqrt(v[i]+c[5])
			}
		},
		rmsMomentum: func(w, grad, v, m, _ []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				v[i] = float32(v[i]*c[3]) + float32(float32(g*g)*c[4])
				m[i] = float32(m[i]*c[6]) + float32(g*c[2])/sqrt(v[i]+c[5])
				w[i] = y - m[i]
			}
		},
		rmsCentered: func(w, grad, v, m, a []float32, c *[8]float32) {
			for i, x := range grad {
				g, y := scaled(w[i], x, c)
				v[i] = float32(v[i]*c[3]) + float32(float32(g*g)*c[4])
				a[i] = float32(a[i]*c[3]) + float32(g*c[4])
				m[i] = float32(m[i]*c[6]) + float32(g*c[2])/sqrt(v[i]-float32(a[i]*a[i])+c[5])
				w[i] = y - m[i]
			}
		},
	}
}

// scaled is the gradient scaled and the parameter decayed.
func scaled(w, g float32, c *[8]float32) (float32, float32) {
	return float32(g * c[0]), w - float32(w*c[1])
}

func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }
