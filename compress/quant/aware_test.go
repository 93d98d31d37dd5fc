package quant_test

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/mnist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A model that learns with rounding predicts as the model of bytes does that it becomes, normalisation and depthwise convolution included, and resumes and saves like any other.
func TestAware(t *testing.T) {
	set, err := mnist.Load()
	if err != nil {
		t.Fatal(err)
	}
	build := func() (*train.Model, *quant.Aware) {
		a := &quant.Aware{Skip: []string{"dense_1"}}
		net := nn.Sequential(nn.Conv2D(8, 3, nn.NoBias(), nn.Strides(2)), nn.BatchNormalization(nn.Momentum(0.9)), nn.Activate(nn.ReLU), nn.DepthwiseConv2D(3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(24, nn.ReLU), nn.Dense(10, nn.Softmax))
		m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.003)), train.SparseCategoricalCrossentropy, train.Accuracy, train.Wrapped(a))
		if err != nil {
			t.Fatal(err)
		}
		return m, a
	}
	m, a := build()
	a.Skip = append(a.Skip, "none")
	if _, err := m.Fit(context.Background(), data.Take(set.Train, 40), train.Callbacks(a)); err == nil || !strings.Contains(err.Error(), `skip: no layer matches "none"`) {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
	a.Skip = a.Skip[:1]
	if _, err := m.Fit(context.Background(), data.Take(set.Train, 4000), train.Epochs(2), train.Callbacks(a)); err != nil {
		t.Fatal(err)
	}
	test := data.Take(set.Test, 1000)
	q, r, err := a.Convert(context.Background(), m, set.Train)
	if err != nil {
		t.Fatal(err)
	}
	before, after := accuracy(t, m, test), accuracy(t, q, test)
	t.Logf("accuracy %g with rounding in floats, %g in bytes", before, after)
	if before < 0.8 || math.Abs(before-after) > 0.003 {
		t.Errorf("accuracy %g with rounding in floats, %g in bytes", before, after)
	}
	x, y := predict(t, m, set.Test, 32), predict(t, q, set.Test, 32)
	far := 0
	for i := range x {
		if math.Abs(float64(x[i]-y[i])) > 0.02 { // a sum of floats may round to the byte beside
			far++
		}
	}
	if far > len(x)/50 {
		t.Errorf("%d of %d predictions differ", far, len(x))
	}
	bytes := 0
	for _, l := range r.Layers {
		if l.Bytes {
			bytes++
		}
		if l.Name == "dense_1" && l.Why != "kept" {
			t.Errorf("%+v", l)
		}
	}
	if bytes != 3 {
		t.Errorf("%d layers of bytes, want 3", bytes)
	}
	path := filepath.Join(t.TempDir(), "q.safetensors")
	if err := q.Save(path); err != nil {
		t.Fatal(err)
	}
	if back, err := train.Load(path); err != nil || accuracy(t, back, test) != after {
		t.Errorf("loaded: %v", err)
	}
	// Scales have moved from where they began, so they were learned.
	s, err := m.State().Get("aware/conv2d/kernel/log")
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range s.F32() {
		if v == 0 || math.Abs(float64(v)) > 2 {
			t.Errorf("the scale of filter %d was multiplied by e to the %g", i, v)
		}
	}
	plain, set2 := trained(t, nn.Flatten(), nn.Dense(10, nn.Softmax))
	if _, _, err := a.Convert(context.Background(), plain, set2.Train); err == nil || !strings.Contains(err.Error(), "not trained with Aware") {
		t.Errorf("%v", err)
	}
}
