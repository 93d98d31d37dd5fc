package train_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A model's predictions of an example are the same in batches of any size, in whatever order the sizes come: programs of several sizes share what kernels make of weights.
func TestPredictionsInBatchesOfManySizes(t *testing.T) {
	const most = 64
	for _, c := range []struct {
		name  string
		shape []int
		net   *nn.Model
	}{
		{"dense", []int{256}, nn.Sequential(nn.Dense(256, nn.ReLU), nn.Dense(128, nn.ReLU), nn.Dense(8))},
		{"convolutions", []int{12, 12, 16}, nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(32, 1, nn.ReLU), nn.Flatten(), nn.Dense(8))},
		{"simple rnn", []int{5, 16}, nn.Sequential(nn.SimpleRNN(128), nn.Dense(8))},
		{"lstm", []int{5, 16}, nn.Sequential(nn.LSTM(128, nn.ReturnSequences()), nn.LSTM(64), nn.Dense(8))},
		{"gru", []int{5, 16}, nn.Sequential(nn.Bidirectional(nn.GRU(128)), nn.Dense(8))},
		{"gru, reset before", []int{5, 16}, nn.Sequential(nn.GRU(128, nn.ResetBefore()), nn.Dense(8))},
		{"encoder", []int{16, 64}, nn.Sequential(nn.TransformerBlock(4), nn.GlobalAveragePool1D(), nn.Dense(8))},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: c.shape, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", Shape: []int{8}, DType: dtype.F32}}}
			m, err := train.Compile(c.net, spec, optim.Adam(), train.MeanSquaredError, train.Threads(2))
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			all, _ := spec.Tensors(most)
			for i := range all[0].F32() {
				all[0].F32()[i] = float32(r.NormFloat64())
			}
			long := len(all[0].F32()) / most
			var want []float32 // [most, 8]: of the first size
			for _, size := range []int{32, 1, 64, 2, 1, 8, 32} {
				x, _ := spec.Tensors(size)
				var got []float32
				for at := 0; at < most; at += size {
					copy(x[0].F32(), all[0].F32()[at*long:])
					y, err := m.PredictBatch(x...)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, y.F32()...)
				}
				if want == nil {
					want = slices.Clone(got)
				}
				for i, v := range got {
					if math.Abs(float64(v-want[i])) > 1e-5 {
						t.Fatalf("batches of %d: example %d, output %d is %v; in batches of 32 it was %v", size, i/8, i%8, v, want[i])
					}
				}
			}
		})
	}
}
