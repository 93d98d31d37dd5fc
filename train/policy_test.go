package train_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// With products in bf16 a training follows that in f32 closely, keeps its weights in f32, is the same bits for any number of threads, and what is saved computes as it did.
func TestMixedPrecision(t *testing.T) {
	tr, te := load(t, 1200)
	var losses [2]float64
	var first string
	for i, p := range []nn.Policy{nn.Float32, nn.MixedBFloat16} {
		for _, threads := range []int{1, 3} {
			m := compile(t, train.DTypePolicy(p), train.Threads(threads), train.Seed(5))
			h, err := m.Fit(context.Background(), tr, train.Epochs(2), train.BatchSize(32))
			if err != nil {
				t.Fatal(err)
			}
			losses[i], _ = h.Epochs[1].Log("loss")
			for _, v := range m.State().Vars() {
				if v.Type.DType == dtype.BF16 {
					t.Errorf("variable %s is kept in bf16", v.Name)
				}
			}
			switch got := bits(t, m); {
			case threads == 1:
				first = got
			case got != first:
				t.Errorf("%s: %d threads give other bits than 1", p, threads)
			}
			if threads > 1 {
				continue
			}
			file := t.TempDir() + "/m.safetensors"
			if err := m.Save(file); err != nil {
				t.Fatal(err)
			}
			again, err := train.Load(file, train.Threads(1))
			if err != nil {
				t.Fatal(err)
			}
			a, err := m.Evaluate(context.Background(), te, 100)
			if err != nil {
				t.Fatal(err)
			}
			b, err := again.Evaluate(context.Background(), te, 100)
			if err != nil || a[0] != b[0] {
				t.Errorf("%s: loss %v, of the saved model %v (%v)", p, a[0], b[0], err)
			}
		}
	}
	if d := math.Abs(losses[1]-losses[0]) / losses[0]; d > 0.05 || d == 0 {
		t.Errorf("the loss is %v in f32 and %v in mixed precision: %.3g of it apart", losses[0], losses[1], d)
	}
}

func TestUnknownPolicy(t *testing.T) {
	tr, _ := load(t, 4)
	_, err := train.Compile(small(), tr.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.DTypePolicy("mixed_bfloat61"))
	if err == nil || !strings.Contains(err.Error(), `did you mean "mixed_bfloat16"?`) {
		t.Error(err)
	}
}
