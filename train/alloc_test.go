package train_test

import (
	"runtime"
	"testing"

	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
)

// A step of shards allocates next to nothing once its programs have run: weights that kernels read in another order are laid out anew in the same memory.
func TestShardedStepAllocates(t *testing.T) {
	ds := tokens(t, 64)
	net := nn.Sequential(nn.Embedding(11, 256), nn.PositionEmbedding(6), nn.TransformerBlock(2), nn.Flatten(), nn.Dense(3, nn.Softmax))
	m, err := train.Compile(net, ds.Spec(), optim.Adam(), train.SparseCategoricalCrossentropy, train.Across(train.Parallel{Shards: 2}), train.Threads(1))
	if err != nil {
		t.Fatal(err)
	}
	x, y := ds.Spec().Tensors(64)
	var before, after runtime.MemStats
	for i := range 6 {
		if i == 3 {
			runtime.ReadMemStats(&before)
		}
		if _, err := m.StepTogether(x, y, 0.01); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / 3; each > 100<<10 {
		t.Errorf("a step allocates %d kB", each>>10)
	} else {
		t.Logf("a step allocates %d bytes", each)
	}
}
