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
	"github.com/jouleml/joule/shape"
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

// BenchmarkStatic is a prediction of convolutional networks with random weights, wide and narrow, in f32 and on bytes, on two threads.
func BenchmarkStatic(b *testing.B) {
	conv := func(filters int, more ...nn.Option) *nn.Layer { return nn.Conv2D(filters, 3, append(more, nn.ReLU)...) }
	for _, c := range []struct {
		name  string
		image shape.Shape
		net   []*nn.Layer
	}{
		{"main", shape.Of(28, 28, 1), []*nn.Layer{conv(32), nn.MaxPool2D(2), conv(64), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(128, nn.ReLU)}},
		{"narrow", shape.Of(28, 28, 1), []*nn.Layer{conv(16), nn.MaxPool2D(2), conv(16), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(48, nn.ReLU)}},
		{"8 filters", shape.Of(28, 28, 1), []*nn.Layer{conv(8), nn.MaxPool2D(2), conv(8), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(32, nn.ReLU)}},
		{"narrow strided", shape.Of(28, 28, 1), []*nn.Layer{conv(16, nn.Strides(2)), conv(16, nn.Strides(2)), nn.Flatten(), nn.Dense(48, nn.ReLU)}},
		{"8 filters strided", shape.Of(28, 28, 1), []*nn.Layer{conv(8, nn.Strides(2)), conv(8, nn.Strides(2)), nn.Flatten(), nn.Dense(32, nn.ReLU)}},
		{"3-16-16", shape.Of(32, 32, 3), []*nn.Layer{conv(16, nn.Same), conv(16, nn.Same), nn.GlobalAveragePool2D()}},
		{"3-64-64", shape.Of(32, 32, 3), []*nn.Layer{conv(64, nn.Same), conv(64, nn.Same), nn.GlobalAveragePool2D()}},
		{"depthwise", shape.Of(32, 32, 3), []*nn.Layer{conv(32, nn.Same), nn.DepthwiseConv2D(3, nn.Same, nn.ReLU), nn.Conv2D(64, 1, nn.ReLU), nn.GlobalAveragePool2D()}},
	} {
		spec := data.ImageSpec(c.image, make([]string, 10))
		m, err := train.Compile(nn.Sequential(append(c.net, nn.Dense(10, nn.Softmax))...), spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(2))
		if err != nil {
			b.Fatal(err)
		}
		x, y := spec.Tensors(128)
		for i := range x[0].Len() {
			x[0].Set(i, float64(i*i%251)/250)
		}
		ds, err := data.FromTensors(spec, x, y)
		if err != nil {
			b.Fatal(err)
		}
		q, _, err := quant.Static(context.Background(), m, ds, quant.Options{})
		if err != nil {
			b.Fatal(err)
		}
		for _, batch := range []int{1, 32, 128} {
			x, _ := spec.Tensors(batch)
			for i := range x[0].Len() {
				x[0].Set(i, float64(i*i%251)/250)
			}
			for i, m := range []*train.Model{m, q} {
				b.Run(fmt.Sprintf("%s/batch=%d/%s", c.name, batch, []string{"f32", "int8"}[i]), func(b *testing.B) {
					for b.Loop() {
						if _, err := m.PredictBatch(x...); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
