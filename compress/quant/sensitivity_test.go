package quant_test

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
)

// A layer whose weights one scale cannot hold is found to be the most sensitive and stays in floats; a limit that nothing meets is said to be so.
func TestMixed(t *testing.T) {
	m, set := trained(t, nn.Flatten(), nn.Dense(32, nn.ReLU), nn.Dense(32, nn.ReLU).Named("spoilt"), nn.Dense(10, nn.Softmax))
	w, err := m.State().Get("spoilt/kernel")
	if err != nil {
		t.Fatal(err)
	}
	w.F32()[0] = 400 // of an input that is always zero: all other weights are rounded away
	if err := m.State().Set("spoilt/kernel", w); err != nil {
		t.Fatal(err)
	}
	before, err := m.State().Get("dense/kernel")
	if err != nil {
		t.Fatal(err)
	}
	for i := range before.F32() {
		if i%32 == 0 {
			before.F32()[i] = 0
		}
	}
	if err := m.State().Set("dense/kernel", before); err != nil {
		t.Fatal(err)
	}
	bias, err := m.State().Get("dense/bias")
	if err != nil {
		t.Fatal(err)
	}
	bias.F32()[0] = 0
	if err := m.State().Set("dense/bias", bias); err != nil {
		t.Fatal(err)
	}
	test := data.Take(set.Test, 1000)
	o := quant.Options{Examples: 200, PerTensor: true}
	q, _, effects, err := quant.Mixed(context.Background(), m, set.Train, test, o, 0.01)
	if err != nil {
		t.Fatal(err)
	}
	if effects[0].Layer != "spoilt" || !effects[0].Kept || effects[0].Drop < 0.1 || effects[1].Kept {
		t.Errorf("%+v", effects)
	}
	if a, b := accuracy(t, m, test), accuracy(t, q, test); b < a-0.01 {
		t.Errorf("accuracy %g became %g", a, b)
	}
	o.Keep = []string{"dense", "dense_1"}
	if _, _, _, err := quant.Mixed(context.Background(), m, set.Train, test, o, 0.01); !errors.Is(err, quant.ErrDrop) {
		t.Errorf("want ErrDrop, not %v", err)
	}
	if _, _, _, err := quant.Mixed(context.Background(), m, set.Train, test, o, math.NaN()); err == nil {
		t.Error("a limit that is no number is taken")
	}
}
