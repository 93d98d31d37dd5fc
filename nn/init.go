package nn

import (
	"fmt"
	"math"

	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Initializer names how a parameter gets its first values. Fans are Keras's: of a kernel [… in, out] the product of
// the leading axes times in, and times out.
type Initializer string

// The initialisers, with Keras's names.
const (
	Zeros           Initializer = "zeros"
	Ones            Initializer = "ones"
	GlorotUniform   Initializer = "glorot_uniform"   // Glorot & Bengio 2010: U(±√(6/(fan_in+fan_out)))
	GlorotNormal    Initializer = "glorot_normal"    // truncated normal of variance 2/(fan_in+fan_out)
	HeUniform       Initializer = "he_uniform"       // He et al. 2015: U(±√(6/fan_in))
	HeNormal        Initializer = "he_normal"        // truncated normal of variance 2/fan_in
	LecunUniform    Initializer = "lecun_uniform"    // U(±√(3/fan_in))
	LecunNormal     Initializer = "lecun_normal"     // truncated normal of variance 1/fan_in
	RandomNormal    Initializer = "random_normal"    // normal of deviation 0.05
	RandomUniform   Initializer = "random_uniform"   // U(±0.05)
	TruncatedNormal Initializer = "truncated_normal" // deviation 0.05, redrawn beyond two
)

// Source gives random numbers for initialisers, in [0, 1).
type Source interface{ Float64() float64 }

// Fill gives a parameter its first values from the random source.
func (in Initializer) Fill(t *tensor.Tensor, r Source) error {
	fanIn, fanOut := fans(t.Shape())
	uniform := func(limit float64) { fill(t, func() float64 { return (2*r.Float64() - 1) * limit }) }
	// A normal cut off at two deviations has 0.8796 of the deviation: Keras divides by it.
	truncated := func(variance float64) {
		s := math.Sqrt(variance) / 0.87962566103423978
		fill(t, func() float64 { return s * cutNormal(r) })
	}
	switch in {
	case Zeros:
		fill(t, func() float64 { return 0 })
	case Ones:
		fill(t, func() float64 { return 1 })
	case GlorotUniform:
		uniform(math.Sqrt(6 / (fanIn + fanOut)))
	case GlorotNormal:
		truncated(2 / (fanIn + fanOut))
	case HeUniform:
		uniform(math.Sqrt(6 / fanIn))
	case HeNormal:
		truncated(2 / fanIn)
	case LecunUniform:
		uniform(math.Sqrt(3 / fanIn))
	case LecunNormal:
		truncated(1 / fanIn)
	case RandomNormal:
		fill(t, func() float64 { return 0.05 * normal(r) })
	case RandomUniform:
		uniform(0.05)
	case TruncatedNormal:
		fill(t, func() float64 { return 0.05 * cutNormal(r) })
	default:
		return fmt.Errorf("nn: unknown initializer %q", string(in))
	}
	return nil
}

func fill(t *tensor.Tensor, f func() float64) {
	for i := range t.Len() {
		t.Set(i, f())
	}
}

func fans(sh shape.Shape) (in, out float64) {
	switch n := len(sh); n {
	case 0:
		return 1, 1
	case 1:
		return float64(sh[0]), float64(sh[0])
	default:
		field := float64(sh[:n-2].Size())
		return max(1, field*float64(sh[n-2])), max(1, field*float64(sh[n-1]))
	}
}

// normal draws from the standard normal distribution (Box & Muller 1958).
func normal(r Source) float64 {
	u := 1 - r.Float64() // in (0, 1]
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*r.Float64())
}

func cutNormal(r Source) float64 {
	for {
		if x := normal(r); math.Abs(x) <= 2 {
			return x
		}
	}
}
