package nn

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// FromTorch turns the weights of one direction of one layer of PyTorch's RNN, LSTM or GRU into the parameters of the layer of the same kind here: kernel [features, gates·units], recurrent
// kernel [units, gates·units] and bias [gates·units], of a GRU [2, gates·units]. class is SimpleRNN, LSTM or GRU; weightIH is weight_ih_l0 [gates·units, features], weightHH
// weight_hh_l0 [gates·units, units], biasIH and biasHH [gates·units] or both nil. Torch stores transposed kernels, has the gates of a GRU in the order r, z, n (here it is z, r, n; of an
// LSTM both have i, f, g, o) and two biases, which SimpleRNN and LSTM add up.
func FromTorch(class string, weightIH, weightHH, biasIH, biasHH *tensor.Tensor) (kernel, recurrentKernel, bias *tensor.Tensor, err error) {
	order := map[string][]int{"SimpleRNN": {0}, "LSTM": {0, 1, 2, 3}, "GRU": {1, 0, 2}}[class]
	if order == nil {
		return nil, nil, nil, fmt.Errorf("nn: weights of PyTorch: %w", unknown("class", class, []string{"GRU", "LSTM", "SimpleRNN"}))
	}
	g := len(order)
	bad := func(what string, t *tensor.Tensor, want string) error {
		if t == nil {
			return fmt.Errorf("nn: weights of PyTorch: %s is missing; a %s takes %s", what, class, want)
		}
		return fmt.Errorf("nn: weights of PyTorch: %s is %v%v; a %s takes %s", what, t.DType(), t.Shape(), class, want)
	}
	if weightHH == nil || len(weightHH.Shape()) != 2 || weightHH.DType() != dtype.F32 || weightHH.Shape()[1] == 0 || weightHH.Shape()[0] != g*weightHH.Shape()[1] {
		return nil, nil, nil, bad("weight_hh", weightHH, fmt.Sprintf("f32 [%d·units, units]", g))
	}
	h := weightHH.Shape()[1]
	if weightIH == nil || len(weightIH.Shape()) != 2 || weightIH.DType() != dtype.F32 || weightIH.Shape()[0] != g*h {
		return nil, nil, nil, bad("weight_ih", weightIH, fmt.Sprintf("f32 [%d, features]", g*h))
	}
	if (biasIH == nil) != (biasHH == nil) {
		return nil, nil, nil, fmt.Errorf("nn: weights of PyTorch: bias_ih and bias_hh must both be there, or neither")
	}
	turned := func(w *tensor.Tensor) *tensor.Tensor { // [g·h, n] to [n, g·h], gates in our order
		n := w.Shape()[1]
		out := tensor.New(dtype.F32, n, g*h)
		for to, from := range order {
			for i := range h {
				for j := range n {
					out.F32()[j*g*h+to*h+i] = w.F32()[(from*h+i)*n+j]
				}
			}
		}
		return out
	}
	kernel, recurrentKernel = turned(weightIH), turned(weightHH)
	if biasIH == nil {
		return kernel, recurrentKernel, nil, nil
	}
	for i, b := range []*tensor.Tensor{biasIH, biasHH} {
		if len(b.Shape()) != 1 || b.DType() != dtype.F32 || b.Shape()[0] != g*h {
			return nil, nil, nil, bad([]string{"bias_ih", "bias_hh"}[i], b, fmt.Sprintf("f32 [%d]", g*h))
		}
	}
	if class == "GRU" {
		bias = tensor.New(dtype.F32, 2, g*h)
	} else {
		bias = tensor.New(dtype.F32, g*h)
	}
	for to, from := range order {
		for i := range h {
			a, b := biasIH.F32()[from*h+i], biasHH.F32()[from*h+i]
			if class == "GRU" {
				bias.F32()[to*h+i], bias.F32()[(g+to)*h+i] = a, b
			} else {
				bias.F32()[to*h+i] = a + b
			}
		}
	}
	return kernel, recurrentKernel, bias, nil
}
