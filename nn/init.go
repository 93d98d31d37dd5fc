package nn

import (
	"fmt"
	"math"
	"slices"

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
	Orthogonal      Initializer = "orthogonal"       // a matrix whose shorter side is orthonormal (Saxe et al., arXiv:1312.6120)
	UnitForgetBias  Initializer = "unit_forget_bias" // of an LSTM: ones for the forget gate, else zeros (Jozefowicz et al. 2015)
)

// Source gives random numbers for initialisers, in [0, 1).
type Source interface{ Float64() float64 }

// initializers is the table of distributions: how one value is drawn for a parameter with the given fans. A normal cut off at two
// deviations has 0.8796 of the deviation: Keras divides by it.
var initializers = map[Initializer]func(in, out float64, r Source) float64{
	Zeros:           func(_, _ float64, _ Source) float64 { return 0 },
	Ones:            func(_, _ float64, _ Source) float64 { return 1 },
	GlorotUniform:   func(in, out float64, r Source) float64 { return uniform(math.Sqrt(6/(in+out)), r) },
	GlorotNormal:    func(in, out float64, r Source) float64 { return cutNormal(math.Sqrt(2/(in+out))/cutDeviation, r) },
	HeUniform:       func(in, _ float64, r Source) float64 { return uniform(math.Sqrt(6/in), r) },
	HeNormal:        func(in, _ float64, r Source) float64 { return cutNormal(math.Sqrt(2/in)/cutDeviation, r) },
	LecunUniform:    func(in, _ float64, r Source) float64 { return uniform(math.Sqrt(3/in), r) },
	LecunNormal:     func(in, _ float64, r Source) float64 { return cutNormal(math.Sqrt(1/in)/cutDeviation, r) },
	RandomNormal:    func(_, _ float64, r Source) float64 { return 0.05 * normal(r) },
	RandomUniform:   func(_, _ float64, r Source) float64 { return uniform(0.05, r) },
	TruncatedNormal: func(_, _ float64, r Source) float64 { return cutNormal(0.05, r) },
	Orthogonal:      func(_, _ float64, r Source) float64 { return normal(r) }, // and then made orthogonal
	UnitForgetBias:  func(_, _ float64, _ Source) float64 { return 0 },         // and then ones
}

const cutDeviation = 0.87962566103423978

// Initializers lists the names of all initialisers in alphabetical order.
func Initializers() []string {
	var out []string
	for i := range initializers {
		out = append(out, string(i))
	}
	slices.Sort(out)
	return out
}

func (in Initializer) check(field string) error {
	if initializers[in] == nil {
		return fmt.Errorf("%s: %w", field, unknown("initializer", string(in), Initializers()))
	}
	return nil
}

// Fill gives a parameter its first values from the random source.
func (in Initializer) Fill(t *tensor.Tensor, r Source) error {
	draw := initializers[in]
	if draw == nil {
		return fmt.Errorf("nn: %w", unknown("initializer", string(in), Initializers()))
	}
	fanIn, fanOut := fans(t.Shape())
	for i := range t.Len() {
		t.Set(i, draw(fanIn, fanOut, r))
	}
	switch n := t.Len(); in {
	case Orthogonal:
		orthogonalise(t)
	case UnitForgetBias:
		for i := n / 4; i < n/2; i++ {
			t.Set(i, 1)
		}
	}
	return nil
}

// orthogonalise makes the rows, or the columns if they are fewer, of a matrix orthonormal, by the Gram-Schmidt process run twice, which keeps them so to rounding
// (Giraud et al. 2005). Axes before the last count as one.
func orthogonalise(t *tensor.Tensor) {
	s := t.Shape()
	if len(s) < 2 || t.Len() == 0 {
		return
	}
	cols := s[len(s)-1]
	rows := t.Len() / cols
	n, long := rows, cols // vectors, and their length
	at := func(i, j int) int { return i*cols + j }
	if cols < rows {
		n, long = cols, rows
		at = func(i, j int) int { return j*cols + i }
	}
	v := make([][]float64, n)
	for i := range v {
		v[i] = make([]float64, long)
		for j := range v[i] {
			v[i][j] = t.At(at(i, j))
		}
		for range 2 {
			for _, w := range v[:i] {
				dot := 0.0
				for j, x := range w {
					dot += x * v[i][j]
				}
				for j, x := range w {
					v[i][j] -= dot * x
				}
			}
		}
		norm := 0.0
		for _, x := range v[i] {
			norm += x * x
		}
		norm = math.Sqrt(norm)
		for j := range v[i] {
			v[i][j] /= norm
			t.Set(at(i, j), v[i][j])
		}
	}
}

func uniform(limit float64, r Source) float64 { return (2*r.Float64() - 1) * limit }

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

// cutNormal is normal times a deviation, drawn again beyond two deviations.
func cutNormal(deviation float64, r Source) float64 {
	for {
		if x := normal(r); math.Abs(x) <= 2 {
			return deviation * x
		}
	}
}
