package quant_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// BenchmarkWeights is a prediction of recurrent layers and of an encoder with random weights, in f32 and with weights of few bits, on two threads.
func BenchmarkWeights(b *testing.B) {
	encoder := func() *nn.Model {
		var blocks []*nn.Layer
		for range 6 {
			blocks = append(blocks, nn.TransformerBlock(12, nn.PostNorm()))
		}
		return nn.Sequential(blocks...)
	}
	for _, c := range []struct {
		name        string
		width, time int
		batches     [2]int
		net         func() *nn.Model
	}{
		{"lstm", 128, 64, [2]int{1, 32}, func() *nn.Model { return nn.Sequential(nn.LSTM(256), nn.Dense(10, nn.Softmax)) }},
		{"gru", 128, 64, [2]int{1, 32}, func() *nn.Model { return nn.Sequential(nn.GRU(256), nn.Dense(10, nn.Softmax)) }},
		{"encoder", 384, 128, [2]int{1, 8}, encoder},
	} {
		spec := data.Spec{Inputs: []data.Field{{Name: "x", Shape: []int{c.time, c.width}, DType: dtype.F32}}, Targets: []data.Field{{Name: "y", DType: dtype.I32}}, Classes: 10}
		loss := train.SparseCategoricalCrossentropy
		if c.name == "encoder" {
			spec.Targets[0], spec.Classes, loss = data.Field{Name: "y", Shape: spec.Inputs[0].Shape, DType: dtype.F32}, 0, train.MeanSquaredError
		}
		m, err := train.Compile(c.net(), spec, optim.Adam(), loss, train.Threads(2))
		if err != nil {
			b.Fatal(err)
		}
		for _, bits := range []int{32, 8, 4} {
			q := m
			if bits < 32 {
				if q, _, err = quant.Weights(context.Background(), m, nil, quant.WeightOptions{Bits: bits}); err != nil {
					b.Fatal(err)
				}
			}
			for _, batch := range c.batches {
				b.Run(fmt.Sprintf("%s/bits=%d/batch=%d", c.name, bits, batch), func(b *testing.B) {
					x, _ := spec.Tensors(batch)
					for i, v := range x[0].F32() {
						x[0].F32()[i] = v + float32(i%13-6)/8
					}
					for b.Loop() {
						if _, err := q.PredictBatch(x...); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
