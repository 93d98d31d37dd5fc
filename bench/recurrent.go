package bench

import (
	"fmt"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// recurrences lists train steps and predictions of recurrent networks: one layer, its last state classified into 10.
func recurrences() []work {
	var out []work
	for _, cell := range []string{"lstm", "gru"} {
		out = append(out, recurrent(cell, 128, 256, 64, 32, true), recurrent(cell, 128, 256, 512, 8, true))
	}
	return append(out, recurrent("lstm", 128, 256, 64, 1, false), recurrent("lstm", 128, 256, 64, 32, false))
}

func recurrent(cell string, in, units, time, batch int, training bool) work {
	kind := "infer"
	if training {
		kind = "train"
	}
	gates := map[string]int{"lstm": 4, "gru": 3}[cell]
	w := work{name: fmt.Sprintf("%s %d-%d T %d batch %d %s", cell, in, units, time, batch, kind), group: "recurrent",
		request: Request{"work": "recurrent", "cell": cell, "in": in, "units": units, "time": time, "batch": batch, "train": training}}
	// Products: of inputs and of states; in training the gradients of both weights and of the states (nobody asks for that of the inputs).
	x, h := 2*float64(batch*time*in*gates*units), 2*float64(batch*time*units*gates*units)
	w.flops = x + h
	if training {
		w.flops = 2*x + 3*h
	}
	w.setup = func(threads int) (func() error, func(), error) {
		spec := data.Spec{
			Inputs:  []data.Field{{Name: "x", Shape: shape.Of(time, in), DType: dtype.F32}},
			Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 10,
		}
		layer := nn.LSTM(units)
		if cell == "gru" {
			layer = nn.GRU(units)
		}
		m, err := train.Compile(nn.Sequential(layer, nn.Dense(10, nn.Softmax)), spec, optim.Adam(), train.SparseCategoricalCrossentropy, train.Threads(threads))
		if err != nil {
			return nil, nil, err
		}
		x, y := spec.Tensors(batch)
		random(x[0])
		for i := range y[0].I32() {
			y[0].I32()[i] = int32(i % 10)
		}
		if !training {
			return func() error { _, err := m.PredictBatch(x...); return err }, func() {}, nil
		}
		return func() error { _, err := m.Step(x, y, 0); return err }, func() {}, nil
	}
	return w
}
