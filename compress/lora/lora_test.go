package lora_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/compress/lora"
	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

const length, width = 6, 24

// rows are examples of length × width whose class is where their first feature is greatest.
func rows(n int) data.Dataset {
	x, y := make([]float32, n*length*width), make([]int32, n)
	for i := range n {
		best := float32(-2)
		for t := range length {
			for k := range width {
				x[(i*length+t)*width+k] = float32(math.Sin(float64(13*i*i + 7*t*t + 3*k + i*t)))
			}
			if v := x[(i*length+t)*width]; v > best {
				best, y[i] = v, int32(t)
			}
		}
	}
	d, err := data.FromSlices(x, shape.Of(length, width), y, shape.Of(), length)
	if err != nil {
		panic(err)
	}
	return d
}

func layers() []*nn.Layer {
	return []*nn.Layer{nn.Dense(width, nn.ReLU).Named("front"), nn.TransformerBlock(2).Named("block"), nn.LSTM(16).Named("lstm"), nn.Dense(length, nn.Softmax).Named("head")}
}

func compiled(t *testing.T, opts ...train.Option) *train.Model {
	t.Helper()
	m, err := train.Compile(nn.Sequential(layers()...), rows(2).Spec(), optim.Adam(optim.Rate(0.01)), train.SparseCategoricalCrossentropy, append([]train.Option{train.Seed(3), train.Threads(2)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// few is a model whose kernels a changes, in few bits.
func few(t *testing.T, a *lora.Adapter, opts ...train.Option) *train.Model {
	t.Helper()
	m := compiled(t, append([]train.Option{train.Wrapped(a), train.Freeze("*")}, opts...)...)
	if _, err := a.Prepare(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	return m
}

func get(t *testing.T, m *train.Model, name string) *tensor.Tensor {
	t.Helper()
	v, err := m.State().Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return v.Clone()
}

func batch(t *testing.T, n int) (x, y []*tensor.Tensor) {
	t.Helper()
	ds := rows(n)
	x, y = ds.Spec().Tensors(n)
	at := make([]int, n)
	for i := range at {
		at[i] = i
	}
	if err := ds.Fill(at, x, y); err != nil {
		t.Fatal(err)
	}
	return x, y
}

// apart is the norm of a-b over that of b.
func apart(a, b []float32) float64 {
	var d, s float64
	for i := range b {
		d += float64(a[i]-b[i]) * float64(a[i]-b[i])
		s += float64(b[i]) * float64(b[i])
	}
	return math.Sqrt(d / max(s, 1e-300))
}

// learnt gives the low-rank changes values other than zero.
func learnt(t *testing.T, m *train.Model) {
	t.Helper()
	for _, p := range m.Params() {
		if strings.HasPrefix(p.Name, "lora/") && strings.HasSuffix(p.Name, "/b") {
			v := get(t, m, p.Name)
			for i := range v.F32() {
				v.F32()[i] = 0.2 * float32(math.Sin(float64(5*i+len(p.Name))))
			}
			if err := m.State().Set(p.Name, v); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Gradients of all changes, and of layers before matrices of few bits, are those of a model of floats whose kernels are what these bits stand for, but for the rounding of operands to 8 bits.
func TestGradientsOfFewBits(t *testing.T) {
	for _, bits := range []int{8, 4} {
		a := &lora.Adapter{Rank: 3, Scale: 6, Bits: bits, Group: 8, On: []string{"block", "lstm/kernel", "head"}}
		m := compiled(t, train.Wrapped(a))
		if _, err := a.Prepare(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		zero := compiled(t, train.Wrapped(a)) // of floats: gets the values that bits stand for
		base := compiled(t, train.Wrapped(a))
		if _, err := a.Prepare(context.Background(), base); err != nil {
			t.Fatal(err)
		}
		if err := base.Merge(); err != nil { // changes are zero still
			t.Fatal(err)
		}
		for _, p := range base.Params() {
			if err := zero.State().Set(p.Name, get(t, base, p.Name)); err != nil {
				t.Fatal(err)
			}
		}
		learnt(t, m)
		learnt(t, zero)
		x, y := batch(t, 8)
		got, err := m.Gradients(x, y)
		if err != nil {
			t.Fatal(err)
		}
		want, err := zero.Gradients(x, y)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) || got["front/kernel"] == nil || got["lora/block/attention/query/kernel/a"] == nil || got["block/attention/query/kernel"] != nil {
			t.Fatalf("%d bits: %d gradients, of floats %d", bits, len(got), len(want))
		}
		for name, g := range want {
			if strings.HasSuffix(name, "key/bias") { // of nothing: softmax does not see it
				continue
			}
			if d := apart(got[name].F32(), g.F32()); !(d < 0.05) {
				t.Errorf("%d bits: the gradient of %s is off by %.2g", bits, name, d)
			}
		}
	}
}

// stop interrupts a training after a step.
type stop struct {
	train.Hooks
	step int64
}

func (s *stop) AfterStep(t *train.Training) error {
	if t.Steps == s.step {
		return train.ErrInterrupted
	}
	return nil
}

// Training learns, leaves the base as it is, resumes with the same bits, and merges into a model that predicts the same and can be saved or brought to few bits again.
func TestTrainResumeMerge(t *testing.T) {
	ctx := context.Background()
	for _, bits := range []int{8, 4} {
		t.Run(fmt.Sprint(bits), func(t *testing.T) {
			a := &lora.Adapter{Rank: 4, Bits: bits, Group: 8}
			m := few(t, a)
			before := get(t, m, "head/kernel")
			if before.DType().Size() != 1 {
				t.Fatalf("the base is %v", before.DType())
			}
			dir := t.TempDir()
			opts := []train.FitOption{train.Epochs(6), train.BatchSize(8)}
			h, err := m.Fit(ctx, rows(64), opts...)
			if err != nil {
				t.Fatal(err)
			}
			first, _ := h.Epochs[0].Log("loss")
			if last, ok := h.Epochs[5].Log("loss"); !ok || !(last < 0.9*first) {
				t.Errorf("the loss went from %g to %g", first, last)
			}
			if !bytes.Equal(before.Bytes(), get(t, m, "head/kernel").Bytes()) {
				t.Error("the base moved")
			}

			if _, err := few(t, a).Fit(ctx, rows(64), append(opts, train.Callbacks(&train.Checkpoints{Dir: dir}, &stop{step: 21}))...); !errors.Is(err, train.ErrInterrupted) {
				t.Fatal(err)
			}
			found, err := checkpoint.Latest(dir)
			if err != nil {
				t.Fatal(err)
			}
			again := few(t, a)
			p, err := again.Restore(found.State)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.Fit(ctx, rows(64), append(opts, train.From(p))...); err != nil {
				t.Fatal(err)
			}
			for _, v := range m.State().Vars() {
				if !bytes.Equal(get(t, m, v.Name).Bytes(), get(t, again, v.Name).Bytes()) {
					t.Errorf("%s has other bits after resuming", v.Name)
				}
			}

			x, _ := batch(t, 8)
			y, err := m.PredictBatch(x...)
			if err != nil {
				t.Fatal(err)
			}
			said := append([]float32{}, y.F32()...)
			file := filepath.Join(dir, "m.safetensors")
			if err := m.Save(file); err == nil || !strings.Contains(err.Error(), "Merge") {
				t.Errorf("saving before merging: %v", err)
			}
			if err := m.Merge(); err != nil {
				t.Fatal(err)
			}
			for _, p := range m.Params() {
				if p.Type.DType.Size() != 4 || strings.HasPrefix(p.Name, "lora/") {
					t.Errorf("%s is still %v", p.Name, p.Type)
				}
			}
			if err := m.Save(file); err != nil {
				t.Fatal(err)
			}
			loaded, err := train.Load(file)
			if err != nil {
				t.Fatal(err)
			}
			q, _, err := quant.Weights(ctx, m, nil, quant.WeightOptions{Bits: 8})
			if err != nil {
				t.Fatal(err)
			}
			for name, k := range map[string]*train.Model{"merged": m, "loaded": loaded, "in 8 bits again": q} {
				y, err := k.PredictBatch(x...)
				if err != nil {
					t.Fatal(err)
				}
				if d := apart(y.F32(), said); !(d < 0.03) {
					t.Errorf("%s: predictions are off by %.2g", name, d)
				}
			}
		})
	}
}

// A base of few bits takes less memory in training than one of floats, and of 4 bits less than of 8. In a step only one kernel at a time is brought back to floats.
func TestMemoryOfFewBits(t *testing.T) {
	var steps, all []int64
	for _, bits := range []int{0, 8, 4} {
		a := &lora.Adapter{Rank: 2, Bits: bits}
		net := nn.Sequential(nn.Flatten(), nn.Dense(256, nn.ReLU), nn.Dense(256, nn.ReLU), nn.Dense(256, nn.ReLU), nn.Dense(256, nn.ReLU), nn.Dense(256, nn.ReLU), nn.Dense(length, nn.Softmax))
		m, err := train.Compile(net, rows(2).Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Wrapped(a), train.Freeze("*"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.Prepare(context.Background(), m); err != nil {
			t.Fatal(err)
		}
		n, err := m.StepMemory(4)
		if err != nil {
			t.Fatal(err)
		}
		steps = append(steps, n)
		for _, v := range m.State().Vars() {
			n += int64(v.Type.Bytes())
		}
		all = append(all, n)
		t.Logf("%d bits: a step takes %d bytes, with variables %d", bits, steps[len(steps)-1], n)
	}
	const kernel = 4 * 256 * 256
	if !(steps[1] < steps[0]-2*kernel && steps[2] < steps[0]-2*kernel) {
		t.Errorf("steps take %d bytes with floats, 8 and 4 bits: kernels are floats side by side", steps)
	}
	if !(all[1] < all[0]/2 && all[2] < all[1]) {
		t.Errorf("steps and variables take %d bytes with floats, 8 and 4 bits", all)
	}
}

func TestErrorsOfFewBits(t *testing.T) {
	images, err := data.FromSlices(make([]float32, 2*64), shape.Of(8, 8, 1), make([]int32, 2), shape.Of(), 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		a      lora.Adapter
		layers []*nn.Layer
		opts   []train.Option
		want   string
	}{
		{lora.Adapter{Rank: 2, Bits: 3}, nil, nil, "a base of 3 bits"},
		{lora.Adapter{Rank: 2, Bits: 4, Group: 12}, nil, nil, "multiple of 8"},
		{lora.Adapter{Rank: 2, Group: 8}, nil, nil, "needs a base"},
		{lora.Adapter{Rank: 2, On: []string{"densse"}}, nil, nil, `no parameter matches "densse"`},
		{lora.Adapter{Rank: 2, Bits: 4, On: []string{"dense/bias"}}, nil, nil, "matches no kernel"},
		{lora.Adapter{Rank: 2, Bits: 4, On: []string{"conv2d"}}, nil, nil, `what "conv2d" matches cannot be kept in 4 bits`},
		{lora.Adapter{Rank: 2, Bits: 4}, []*nn.Layer{nn.Conv2D(3, 8, nn.Softmax), nn.Flatten()}, nil, "no kernel of a product"},
		{lora.Adapter{Rank: 2, Bits: 8}, nil, []train.Option{train.DTypePolicy(nn.MixedBFloat16)}, "not with precision"},
	} {
		if c.layers == nil {
			c.layers = []*nn.Layer{nn.Conv2D(2, 3, nn.ReLU), nn.Flatten(), nn.Dense(3, nn.Softmax)}
		}
		m, err := train.Compile(nn.Sequential(c.layers...), images.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, append(c.opts, train.Wrapped(&c.a))...)
		if err == nil {
			_, err = c.a.Prepare(context.Background(), m)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.want, err)
		}
	}
}
