package train

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// measure gives a metric over batches of the given sizes.
func measure(m Metric, pred, target *tensor.Tensor, batches ...int) float64 {
	k, at := m.make(), 0
	for _, n := range append(batches, pred.Shape()[0]) {
		n = min(n, pred.Shape()[0]-at)
		if n > 0 {
			k.add(pred.Slice(at, at+n), target.Slice(at, at+n))
		}
		at += n
	}
	return k.value()
}

func TestMetrics(t *testing.T) {
	three := rowsOf([][]float64{{0.7, 0.2, 0.1}, {0.1, 0.3, 0.6}, {0.4, 0.5, 0.1}, {0.2, 0.2, 0.6}, {0.4, 0.4, 0.2}})
	labels := tensor.Of([]int32{0, 1, 1, 2, 1}) // decisions 0 2 1 2 0
	hot := rowsOf([][]float64{{1, 0, 0}, {0, 1, 0}, {0, 1, 0}, {0, 0, 1}, {0, 1, 0}})
	one := rowsOf([][]float64{{0.9}, {0.4}, {0.6}, {0.2}, {0.5}, {0.7}})
	truth := rowsOf([][]float64{{1}, {1}, {0}, {0}, {0}, {1}}) // decisions 1 0 1 0 0 1
	vector := tensor.Of([]int32{1, 1, 0, 0, 0, 1})
	two := rowsOf([][]float64{{0.1, 0.9}, {0.6, 0.4}, {0.4, 0.6}, {0.8, 0.2}, {0.5, 0.5}, {0.3, 0.7}})
	for _, c := range []struct {
		name         string
		m            Metric
		pred, target *tensor.Tensor
		want         float64
	}{
		{"accuracy", Accuracy, three, labels, 3. / 5},
		{"accuracy, one-hot", Accuracy, three, hot, 3. / 5},
		{"accuracy, one number", Accuracy, one, truth, 4. / 6},
		{"accuracy, one number, class numbers", Accuracy, one, vector, 4. / 6},
		{"top 1", TopK(1), three, labels, 3. / 5},
		{"top 2", TopK(2), three, labels, 1}, // of the tie in row 4 class 1 is second
		{"top 3", TopK(3), three, labels, 1},
		{"top 2, no class", TopK(2), three, tensor.Of([]int32{0, 7, -1, 2, 1}), 3. / 5},
		// Classes 0, 1, 2: true positives 1 1 1, false positives 1 0 1, false negatives 0 2 0.
		{"precision", Precision, three, labels, (1./2 + 1 + 1./2) / 3},
		{"recall", Recall, three, labels, (1 + 1./3 + 1) / 3},
		{"f1", F1, three, labels, (2./3 + 1./2 + 2./3) / 3},
		// Class 2 never occurs: the mean is over the others.
		{"f1, a class that never occurs", F1, three, tensor.Of([]int32{0, 1, 1, 0, 1}), (2./(2+1+1) + 2./(2+0+2)) / 2},
		{"recall, a class that never occurs", Recall, three, tensor.Of([]int32{0, 1, 1, 0, 1}), (1./2 + 1./3) / 2},
		// Class 1 of two: 2 true positives, 1 false positive, 1 false negative.
		{"precision of two", Precision, one, truth, 2. / 3},
		{"recall of two", Recall, two, vector, 2. / 3},
		{"f1 of two", F1, one, truth, 4. / 6},
		{"f1, nothing is positive", F1, one, rowsOf([][]float64{{0}, {0}, {0}, {0}, {0}, {0}}), 0},
		// 9 pairs: 0.9 beats three, 0.4 beats 0.2, 0.7 beats three.
		{"auc", ROCAUC, one, truth, 7. / 9},
		{"auc of two", ROCAUC, two, vector, 7. / 9},
		// Scores equal across classes count half: pairs (1,1) (1,0) (0,1) (0,0) of scores.
		{"auc, ties", ROCAUC, rowsOf([][]float64{{1}, {0}, {1}, {0}}), rowsOf([][]float64{{1}, {1}, {0}, {0}}), (0.5 + 1 + 0 + 0.5) / 4},
		{"auc, all equal", ROCAUC, rowsOf([][]float64{{1}, {1}, {1}}), rowsOf([][]float64{{1}, {0}, {0}}), 0.5},
		{"auc, one class", ROCAUC, rowsOf([][]float64{{1}, {0}}), rowsOf([][]float64{{1}, {1}}), math.NaN()},
		{"mae", MAE, rowsOf([][]float64{{1, 2}, {3, 4}, {0, 0}}), rowsOf([][]float64{{2, 2}, {1, 4.5}, {0, 1}}), (1 + 0 + 2 + 0.5 + 0 + 1) / 6},
		{"rmse", RMSE, rowsOf([][]float64{{1, 2}, {3, 4}, {0, 0}}), rowsOf([][]float64{{2, 2}, {1, 4.5}, {0, 1}}), math.Sqrt((1 + 0 + 4 + 0.25 + 0 + 1) / 6)},
	} {
		for _, batches := range [][]int{nil, {1, 2}} {
			got := measure(c.m, c.pred, c.target, batches...)
			if math.Abs(got-c.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(c.want) {
				t.Errorf("%s in batches %v: %g, want %g", c.name, batches, got, c.want)
			}
		}
	}
	for name, m := range Metrics {
		if m.Name != name {
			t.Errorf("metric %s is listed as %s", m.Name, name)
		}
	}
}

// An epoch without examples has no NaN where a number makes sense.
func TestMetricsOfNothing(t *testing.T) {
	for _, m := range []Metric{Accuracy, TopK(5), Precision, Recall, F1, MAE, RMSE} {
		if v := m.make().value(); v != 0 {
			t.Errorf("%s of nothing is %g", m.Name, v)
		}
	}
}

func TestConfusionMatrix(t *testing.T) {
	three := rowsOf([][]float64{{0.7, 0.2, 0.1}, {0.1, 0.3, 0.6}, {0.4, 0.5, 0.1}, {0.2, 0.2, 0.6}})
	got := ConfusionMatrix(three, tensor.Of([]int32{0, 1, 1, 5}))
	want := [][]int64{{1, 0, 0}, {0, 1, 1}, {0, 0, 0}}
	for i := range want {
		for j := range want[i] {
			if got[i][j] != want[i][j] {
				t.Fatalf("confusion %v, want %v", got, want)
			}
		}
	}
}

// The rank statistic against its definition, the share of pairs, on scores with many ties.
func TestAUCAgainstPairs(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		const n = 60
		p, y := tensor.New(dtype.F32, n, 1), tensor.New(dtype.I32, n)
		for i := range n {
			p.Set(i, float64(r.IntN(8))/8)
			y.Set(i, float64(r.IntN(2)))
		}
		won, pairs := 0.0, 0.0
		for i := range n {
			for j := range n {
				if y.At(i) == 1 && y.At(j) == 0 {
					pairs++
					switch {
					case p.At(i) > p.At(j):
						won++
					case p.At(i) == p.At(j):
						won += 0.5
					}
				}
			}
		}
		if got := measure(ROCAUC, p, y, 7, 20); math.Abs(got-won/pairs) > 1e-12 {
			t.Errorf("area %g, share of pairs %g", got, won/pairs)
		}
	}
}
