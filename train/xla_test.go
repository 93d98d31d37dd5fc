package train_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// mainNet is the network of the main job.
func mainNet() *nn.Model {
	return nn.Sequential(nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2), nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax))
}

// losses are those of the first steps in the data's order.
func losses(t *testing.T, m *train.Model, ds data.Dataset, batch, from, to int) []float64 {
	t.Helper()
	x, y := ds.Spec().Tensors(batch)
	var out []float64
	for s := from; s < to; s++ {
		at := make([]int, batch)
		for i := range at {
			at[i] = (s*batch + i) % ds.Len()
		}
		if err := ds.Fill(at, x, y); err != nil {
			t.Fatal(err)
		}
		l, err := m.Step(x, y, 1e-3)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

// near says that two loss curves are the same but for the order of sums, whose effect grows with the steps.
func near(t *testing.T, what string, got, want []float64) {
	t.Helper()
	for i := range want {
		if tol := 2e-4 * float64(1+i); !(math.Abs(got[i]-want[i]) <= tol*want[i]+1e-6) {
			t.Errorf("%s: loss %d is %v, on the CPU %v", what, i, got[i], want[i])
			return
		}
	}
}

// The main network has the loss curve of the CPU backend on one device and on two, which share each batch (but not one of an odd number, which both compute); so has a GPT. A training that
// goes on from the saved variables has the same bits.
func TestXLATrainsAsTheCPU(t *testing.T) {
	one, two := backendtest.XLA(t, 1), backendtest.XLA(t, 2)
	images, _ := load(t, 640)
	field := []data.Field{{Name: "tokens", Shape: shape.Of(32), DType: dtype.I32}}
	letters := data.Spec{Inputs: field, Targets: field}
	n := 64
	xs, ys := letters.Tensors(n)
	for i := range xs[0].I32() {
		xs[0].I32()[i], ys[0].I32()[i] = int32(i*i/3%17), int32((i+1)*(i+1)/3%17)
	}
	texts, err := data.FromTensors(letters, xs, ys)
	if err != nil {
		t.Fatal(err)
	}
	gpt := func() *nn.Model {
		return nn.Sequential(nn.Embedding(17, 24), nn.PositionEmbedding(32), nn.Dropout(0.1), nn.TransformerBlock(2, nn.CausalAttention()), nn.LayerNormalization(), nn.Dense(17, nn.Softmax))
	}
	norm := func() *nn.Model {
		return nn.Sequential(nn.Conv2D(4, 3, nn.Strides(2)), nn.BatchNormalization(), nn.Dropout(0.3), nn.Flatten(), nn.Dense(10, nn.Softmax))
	}
	for _, c := range []struct {
		name  string
		net   func() *nn.Model
		ds    data.Dataset
		batch int
		steps int
	}{{"main network", mainNet, images, 32, 12}, {"odd batch", mainNet, images, 5, 2}, {"batch norm and dropout", norm, images, 16, 8}, {"gpt", gpt, texts, 8, 8}} {
		make := func(o ...train.Option) *train.Model {
			m, err := train.Compile(c.net(), c.ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, o...)
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		want := losses(t, make(), c.ds, c.batch, 0, c.steps)
		m := make(train.On(one))
		half := c.steps / 2
		got := losses(t, m, c.ds, c.batch, 0, half)
		again := make(train.On(one))
		for _, v := range m.State().Vars() {
			x, err := m.State().Get(v.Name)
			if err == nil {
				err = again.State().Set(v.Name, x)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, losses(t, m, c.ds, c.batch, half, c.steps)...)
		near(t, c.name, got, want)
		losses(t, again, c.ds, c.batch, half, c.steps)
		if bits(t, again) != bits(t, m) {
			t.Errorf("%s: a resumed training has other bits", c.name)
		}
		near(t, c.name+" on two devices", losses(t, make(train.On(two)), c.ds, c.batch, 0, c.steps), want)
	}
}

// The whole of Fit runs on XLA: shuffled epochs, a smaller last batch, evaluation; the account says that shares of layers are predicted, and its times add up to those measured.
func TestXLAFit(t *testing.T) {
	b := backendtest.XLA(t, 1)
	tr, te := load(t, 1000)
	m := compile(t, train.On(b))
	a, err := m.StartAccount(nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := m.Fit(context.Background(), tr, train.Epochs(3), train.BatchSize(48), train.Validate(te))
	if err != nil {
		t.Fatal(err)
	}
	if acc, _ := h.Epochs[2].Log("val_accuracy"); acc < 0.7 {
		t.Errorf("accuracy %v", acc)
	}
	l, err := a.Ledger()
	if err != nil {
		t.Fatal(err)
	}
	if !l.SharesPredicted || !strings.Contains(l.Table(), "predicted by the cost model") || l.Joules.Source.Measured {
		t.Errorf("%s", l.Table())
	}
	sum := 0.0
	for _, e := range l.Lines {
		sum += e.Seconds
	}
	if math.Abs(sum-l.Seconds) > 1e-6*l.Seconds || l.Seconds < h.Seconds/2 {
		t.Errorf("lines add up to %v, total %v, training %v", sum, l.Seconds, h.Seconds)
	}
	// A loss that is no number is found in its layer on XLA too.
	x, y := tr.Spec().Tensors(4)
	x[0].F32()[14*28+14] = float32(math.Inf(1))
	bad, err := data.FromTensors(tr.Spec(), x, y)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compile(t, train.On(b)).Fit(context.Background(), bad); err == nil || !strings.Contains(err.Error(), "layer conv2d") || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("%v", err)
	}
}

// beside is a device beside the processor, as an account sees it.
type beside struct{ cpu.Backend }

func (beside) Platform() string { return "cuda" }

// Energy of a device that no counter tells of is not made up: the account is of the host and says so, measured or estimated.
func TestEnergyBesideADevice(t *testing.T) {
	m := compile(t, train.On(beside{}))
	tr, _ := load(t, 8)
	for _, c := range []struct {
		meter energy.Meter
		want  string
	}{{nil, "estimated (cpu model of the host; the device is not counted)"}, {counter("RAPL"), "measured (RAPL of the host; the device is not counted)"}, {counter("RAPL + NVML"), "measured (RAPL + NVML)"}} {
		a, err := m.StartAccount(c.meter)
		if err != nil {
			t.Fatal(err)
		}
		losses(t, m, tr, 8, 0, 1)
		l, err := a.Ledger()
		if err != nil {
			t.Fatal(err)
		}
		if got := l.Joules.Source.String(); got != c.want {
			t.Errorf("source %q, want %q", got, c.want)
		}
	}
}

// counter is a meter by its name.
type counter string

func (c counter) Joules() (float64, error) { return float64(time.Now().UnixNano()) * 1e-9, nil }

func (c counter) Source() energy.Source { return energy.Source{Measured: true, Name: string(c)} }

// Ranks that train on XLA leave the bits of one process with as many shards.
func TestXLAAcrossRanks(t *testing.T) {
	b := backendtest.XLA(t, 1)
	tr, _ := load(t, 48)
	run := func(c *dist.Comm) (string, error) {
		m, err := compiled(c, tr.Spec(), train.Parallel{Shards: 2, Check: 1}, train.On(b))
		if err != nil {
			return "", err
		}
		if _, err := m.Fit(context.Background(), tr, train.BatchSize(16)); err != nil {
			return "", err
		}
		return bits(t, m), nil
	}
	want, err := run(nil)
	if err != nil {
		t.Fatal(err)
	}
	allRanks(t, 2, func(c *dist.Comm) error {
		got, err := run(c)
		if err == nil && got != want {
			err = errors.New("other weights than one process")
		}
		return err
	})
}
