package nn_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
)

// Mean, variance and bounds of each initialiser are what its definition says, for the fans that Keras counts.
func TestInitializers(t *testing.T) {
	const inf = math.MaxFloat64
	// A normal of deviation s, cut off at 2s, keeps 0.7737 of its variance.
	const cut = 0.87962566103423978 * 0.87962566103423978
	for _, shape := range []struct {
		dims    []int
		in, out float64
	}{{[]int{120, 90}, 120, 90}, {[]int{3, 3, 20, 50}, 180, 450}, {[]int{3, 40, 80}, 120, 240}, {[]int{9000}, 9000, 9000}} {
		in, out := shape.in, shape.out
		checked := map[nn.Initializer]bool{}
		for _, c := range []struct {
			init            nn.Initializer
			variance, bound float64
		}{
			{nn.Zeros, 0, 0},
			{nn.GlorotUniform, 2 / (in + out), math.Sqrt(6 / (in + out))},
			{nn.GlorotNormal, 2 / (in + out), 2 * math.Sqrt(2/(in+out)/cut)},
			{nn.HeUniform, 2 / in, math.Sqrt(6 / in)},
			{nn.HeNormal, 2 / in, 2 * math.Sqrt(2/in/cut)},
			{nn.LecunUniform, 1 / in, math.Sqrt(3 / in)},
			{nn.LecunNormal, 1 / in, 2 * math.Sqrt(1/in/cut)},
			{nn.RandomNormal, 0.05 * 0.05, inf},
			{nn.RandomUniform, 0.05 * 0.05 / 3, 0.05},
			{nn.TruncatedNormal, 0.05 * 0.05 * cut, 0.1},
		} {
			checked[c.init] = true
			x := tensor.New(dtype.F32, shape.dims...)
			if err := c.init.Fill(x, rand.New(rand.NewPCG(1, 2))); err != nil {
				t.Fatal(err)
			}
			n := float64(x.Len())
			var mean, square, most float64
			for _, v := range x.Floats() {
				mean += v / n
				square += v * v / n
				most = max(most, math.Abs(v))
			}
			// Five standard errors; that of a variance is at most that of the normal distribution.
			if math.Abs(mean) > 5*math.Sqrt(c.variance/n) {
				t.Errorf("%s of %v: mean %g", c.init, shape.dims, mean)
			}
			if math.Abs(square-c.variance) > 5*c.variance*math.Sqrt(2/n) {
				t.Errorf("%s of %v: variance %g, want %g", c.init, shape.dims, square, c.variance)
			}
			if most > c.bound*(1+1e-6) || c.bound != inf && most < 0.95*c.bound {
				t.Errorf("%s of %v: greatest value %g, want about %g", c.init, shape.dims, most, c.bound)
			}
		}
		for _, name := range nn.Initializers() {
			if name != "ones" && name != "orthogonal" && name != "unit_forget_bias" && !checked[nn.Initializer(name)] {
				t.Errorf("%s is not tested", name)
			}
		}
	}
}

// The shorter side of an orthogonal matrix is orthonormal, whichever it is, and differs from draw to draw.
func TestOrthogonal(t *testing.T) {
	for _, dims := range [][]int{{5, 20}, {20, 5}, {7, 7}, {2, 3, 4}, {1, 1}} {
		x, other := tensor.New(dtype.F64, dims...), tensor.New(dtype.F64, dims...)
		r := rand.New(rand.NewPCG(1, 2))
		if err := errors.Join(nn.Orthogonal.Fill(x, r), nn.Orthogonal.Fill(other, r)); err != nil {
			t.Fatal(err)
		}
		cols := dims[len(dims)-1]
		rows := x.Len() / cols
		n, long, at := rows, cols, func(m *tensor.Tensor, i, j int) float64 { return m.At(i*cols + j) }
		if cols < rows {
			n, long, at = cols, rows, func(m *tensor.Tensor, i, j int) float64 { return m.At(j*cols + i) }
		}
		same := true
		for i := range n {
			for k := range i + 1 {
				dot := 0.0
				for j := range long {
					dot += at(x, i, j) * at(x, k, j)
					same = same && at(x, i, j) == at(other, i, j)
				}
				if want := map[bool]float64{true: 1}[i == k]; math.Abs(dot-want) > 1e-12 {
					t.Errorf("%v: vectors %d and %d have the product %g", dims, i, k, dot)
				}
			}
		}
		if same && x.Len() > 1 {
			t.Errorf("%v: two draws are the same", dims)
		}
	}
	b := tensor.New(dtype.F32, 8)
	if err := nn.UnitForgetBias.Fill(b, nil); err != nil || !slices.Equal(b.F32(), []float32{0, 0, 1, 1, 0, 0, 0, 0}) {
		t.Errorf("%v %v", b.F32(), err)
	}
}

func TestOnesAndUnknown(t *testing.T) {
	x := tensor.New(dtype.F32, 3)
	if err := nn.Ones.Fill(x, nil); err != nil || x.At(0)+x.At(1)+x.At(2) != 3 {
		t.Errorf("%v, error %v", x, err)
	}
	if err := nn.Initializer("glorot_unifrom").Fill(x, nil); err == nil || !strings.Contains(err.Error(), `did you mean "glorot_uniform"?`) {
		t.Errorf("error %v", err)
	}
}

// Every activation in a layer: gradients against differences, CPU against reference.
func TestActivations(t *testing.T) {
	for _, a := range nn.Activations() {
		checkLayer(t, layerCase{nn.Activate(nn.Activation(a)), in(f32(2, 7)), []int{2, 7}, ""}, 3, true)
	}
}
