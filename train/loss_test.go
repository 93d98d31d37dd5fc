package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/grad"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
	"github.com/jouleml/joule/tensor"
)

// lossRun is the mean loss and the gradient for x, where predictions are last(x).
func lossRun(t *testing.T, b backend.Backend, l Loss, last func(*graph.Node) *graph.Node, x, target *tensor.Tensor) (loss float64, each, d *tensor.Tensor) {
	t.Helper()
	g, err := graph.Build(func(g *graph.Graph) {
		xn := g.Input("x", graph.TypeOf(x))
		pred, y := last(xn), g.Input("y", graph.TypeOf(target))
		if why := l.target(pred.Type(), y.Type()); why != "" {
			t.Fatalf("%s %s", l.Name, why)
		}
		e := l.each(pred, y)
		mean := op.MeanAll(e)
		g.Output("loss", op.Convert(mean, dtype.F64))
		g.Output("each", e)
		g.Output("d", op.Convert(grad.Of(mean, xn)[0], dtype.F64))
	})
	if err != nil {
		t.Fatal(err)
	}
	st, _ := b.NewState(nil)
	e, err := b.Compile(g, st, backend.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	out := backend.NewOutputs(g)
	if err := e.Run([]*tensor.Tensor{x, target}, out); err != nil {
		t.Fatal(err)
	}
	return out[0].At(0), out[1], out[2]
}

func identity(x *graph.Node) *graph.Node { return x }

// shares turns rows of logits into probabilities.
func shares(rows [][]float64) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		sum := 0.0
		for _, v := range r {
			sum += math.Exp(v)
		}
		for _, v := range r {
			out[i] = append(out[i], math.Exp(v)/sum)
		}
	}
	return out
}

func rowsOf(rows [][]float64) *tensor.Tensor {
	t := tensor.New(dtype.F32, len(rows), len(rows[0]))
	for i, r := range rows {
		for j, v := range r {
			t.Set(i*len(r)+j, v)
		}
	}
	return t
}

var (
	scores   = [][]float64{{1, 2, 0.5}, {-1, 0.25, 3}, {0, 0, 0.5}, {4, -2, 1}}
	points   = [][]float64{{0.5, -1.5}, {2, 0.25}, {-0.75, 3}}
	aims     = [][]float64{{0.25, 1.5}, {2.5, 0}, {-3, 2.5}}
	bits     = [][]float64{{1, 0}, {0, 0}, {1, 1}}
	hot      = [][]float64{{0, 1, 0}, {1, 0, 0}, {0, 0, 1}, {1, 0, 0}}
	soft     = [][]float64{{0.2, 0.5, 0.3}, {0.7, 0.1, 0.2}, {0.25, 0.25, 0.5}, {0.1, 0.8, 0.1}}
	hotClass = []int32{1, 0, 2, 0}
)

// byHand gives the mean over examples of f.
func byHand(n int, f func(i int) float64) float64 {
	sum := 0.0
	for i := range n {
		sum += f(i) / float64(n)
	}
	return sum
}

func overAxis(a, b []float64, f func(a, b float64) float64) float64 {
	return byHand(len(a), func(j int) float64 { return f(a[j], b[j]) })
}

func sigmoids(rows [][]float64) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		for _, v := range r {
			out[i] = append(out[i], 1/(1+math.Exp(-v)))
		}
	}
	return out
}

// doubled is rows twice as great.
func doubled(rows [][]float64) [][]float64 {
	out := make([][]float64, len(rows))
	for i, r := range rows {
		for _, v := range r {
			out[i] = append(out[i], 2*v)
		}
	}
	return out
}

func xent(target, p []float64) float64 {
	sum := 0.0
	for j := range p {
		sum -= target[j] * math.Log(p[j])
	}
	return sum
}

// smoothed mixes a share of the uniform distribution into targets.
func smoothed(target []float64, share float64) []float64 {
	out := make([]float64, len(target))
	for j, v := range target {
		out[j] = v*(1-share) + share/float64(len(target))
	}
	return out
}

// Each loss against its definition written out in float64, from scores behind an activation and from probabilities; the CPU against the reference;
// gradients against differences.
func TestLosses(t *testing.T) {
	p, q := shares(scores), sigmoids(points)
	classes := tensor.Of(hotClass)
	with := func(label int32) *tensor.Tensor {
		c := classes.Clone()
		c.I32()[1] = label
		return c
	}
	for _, c := range []struct {
		name   string
		l      Loss
		last   func(*graph.Node) *graph.Node
		x      [][]float64
		target *tensor.Tensor
		want   float64
	}{
		{"sparse", SparseCategoricalCrossentropy, op.Softmax, scores, classes, byHand(4, func(i int) float64 { return -math.Log(p[i][hotClass[i]]) })},
		{"sparse of probabilities", SparseCategoricalCrossentropy, identity, p, classes, byHand(4, func(i int) float64 { return -math.Log(p[i][hotClass[i]]) })},
		{"sparse smoothed", SparseCategorical(Smooth(0.2)), op.Softmax, scores, classes, byHand(4, func(i int) float64 { return xent(smoothed(hot[i], 0.2), p[i]) })},
		{"sparse ignoring", SparseCategorical(Ignore(-1)), op.Softmax, scores, with(-1), byHand(3, func(i int) float64 { k := []int{0, 2, 3}[i]; return -math.Log(p[k][hotClass[k]]) })},
		{"sparse ignoring, smoothed", SparseCategorical(Ignore(9), Smooth(0.1)), op.Softmax, scores, with(9), byHand(3, func(i int) float64 { k := []int{0, 2, 3}[i]; return xent(smoothed(hot[k], 0.1), p[k]) })},
		{"all ignored", SparseCategorical(Ignore(2)), op.Softmax, scores, tensor.Of([]int32{2, 2, 2, 2}), 0},
		{"categorical", CategoricalCrossentropy, op.Softmax, scores, rowsOf(soft), byHand(4, func(i int) float64 { return xent(soft[i], p[i]) })},
		{"categorical of probabilities", CategoricalCrossentropy, identity, p, rowsOf(soft), byHand(4, func(i int) float64 { return xent(soft[i], p[i]) })},
		{"categorical smoothed", Categorical(0.3), op.Softmax, scores, rowsOf(hot), byHand(4, func(i int) float64 { return xent(smoothed(hot[i], 0.3), p[i]) })},
		{"binary", BinaryCrossentropy, op.Sigmoid, points, rowsOf(bits), byHand(3, func(i int) float64 {
			return overAxis(bits[i], q[i], func(t, p float64) float64 { return -t*math.Log(p) - (1-t)*math.Log(1-p) })
		})},
		{"categorical of loose numbers", CategoricalCrossentropy, identity, doubled(p), rowsOf(soft), byHand(4, func(i int) float64 { return xent(soft[i], p[i]) })},
		{"binary smoothed", Binary(0.2), op.Sigmoid, points, rowsOf(bits), byHand(3, func(i int) float64 {
			return overAxis(bits[i], q[i], func(t, p float64) float64 { t = 0.1 + 0.8*t; return -t*math.Log(p) - (1-t)*math.Log(1-p) })
		})},
		{"binary of probabilities", BinaryCrossentropy, identity, q, rowsOf(bits), byHand(3, func(i int) float64 {
			return overAxis(bits[i], q[i], func(t, p float64) float64 { return -t*math.Log(p) - (1-t)*math.Log(1-p) })
		})},
		{"mse", MeanSquaredError, identity, points, rowsOf(aims), byHand(3, func(i int) float64 {
			return overAxis(points[i], aims[i], func(a, b float64) float64 { return (a - b) * (a - b) })
		})},
		{"mae", MeanAbsoluteError, identity, points, rowsOf(aims), byHand(3, func(i int) float64 {
			return overAxis(points[i], aims[i], func(a, b float64) float64 { return math.Abs(a - b) })
		})},
		{"huber", Huber(0.6), identity, points, rowsOf(aims), byHand(3, func(i int) float64 {
			return overAxis(points[i], aims[i], func(a, b float64) float64 {
				if d := math.Abs(a - b); d > 0.6 {
					return 0.6*d - 0.5*0.36
				}
				return 0.5 * (a - b) * (a - b)
			})
		})},
		{"kl", KLDivergence, op.Softmax, scores, rowsOf(soft), byHand(4, func(i int) float64 {
			sum := 0.0
			for j, t := range soft[i] {
				sum += t * math.Log(t/p[i][j])
			}
			return sum
		})},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := rowsOf(c.x)
			loss, _, d := lossRun(t, ref.Backend{}, c.l, c.last, x, c.target)
			// Operands are rounded to f32 (6e-8), and so are constants.
			if math.Abs(loss-c.want) > 1e-6*(1+math.Abs(c.want)) {
				t.Errorf("loss %.9g, by hand %.9g", loss, c.want)
			}
			fast, _, fd := lossRun(t, cpu.Backend{}, c.l, c.last, x, c.target)
			if math.Abs(fast-loss) > 1e-5*(1+math.Abs(loss)) {
				t.Errorf("loss %.9g on the CPU, %.9g on the reference", fast, loss)
			}
			for i := range d.Len() {
				if math.Abs(fd.At(i)-d.At(i)) > 1e-5 {
					t.Errorf("gradient [%d] is %g on the CPU, %g on the reference", i, fd.At(i), d.At(i))
				}
			}
			// The reference works in float64, so the difference is as exact as the step's square.
			r := rand.New(rand.NewPCG(1, 2))
			up, down := x.Clone(), x.Clone()
			say, scale := 0.0, 0.0
			for i := range x.Len() {
				u := (2*r.Float64() - 1) / (1 << 18)
				up.Set(i, x.At(i)+u)
				down.Set(i, x.At(i)-u)
				say += d.At(i) * (up.At(i) - down.At(i))
				scale += math.Abs(d.At(i) * u)
			}
			a, _, _ := lossRun(t, ref.Backend{}, c.l, c.last, up, c.target)
			b, _, _ := lossRun(t, ref.Backend{}, c.l, c.last, down, c.target)
			if math.Abs(a-b-say) > 1e-5*scale+1e-10 {
				t.Errorf("the loss changes by %g, the gradient says %g", a-b, say)
			}
		})
	}
}

// A label that is no class makes the loss NaN, on every backend and for every way to it, so that it cannot pass unseen.
func TestWrongLabels(t *testing.T) {
	for _, bad := range []int32{-1, 3, math.MaxInt32, math.MinInt32} {
		for name, l := range map[string]Loss{"plain": SparseCategoricalCrossentropy, "smoothed": SparseCategorical(Smooth(0.1)), "ignoring another": SparseCategorical(Ignore(0))} {
			for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
				loss, each, _ := lossRun(t, b, l, op.Softmax, rowsOf(scores), tensor.Of([]int32{1, bad, 2, 1}))
				if !math.IsNaN(loss) || !math.IsNaN(each.At(1)) || math.IsNaN(each.At(0)) {
					t.Errorf("label %d, %s, on %s: loss %g, of each example %v", bad, name, b.Name(), loss, each)
				}
			}
		}
	}
}

// Certain predictions, right or wrong, give finite losses and gradients.
func TestCertainPredictions(t *testing.T) {
	far := rowsOf([][]float64{{200, -200}, {-200, 200}})
	sure := rowsOf([][]float64{{1, 0}, {0, 1}})
	classes := tensor.Of([]int32{1, 1})
	target := rowsOf([][]float64{{0, 1}, {0, 1}})
	for name, c := range map[string]struct {
		l      Loss
		last   func(*graph.Node) *graph.Node
		x, y   *tensor.Tensor
		lo, hi float64 // where the loss must be
	}{
		"scores":                  {SparseCategoricalCrossentropy, op.Softmax, far, classes, 199.9, 200.1},
		"probabilities":           {SparseCategoricalCrossentropy, identity, sure, classes, 7, 9}, // -½ log 1e-7
		"categorical":             {CategoricalCrossentropy, identity, sure, target, 7, 9},
		"binary of scores":        {BinaryCrossentropy, op.Sigmoid, far, target, 99.9, 100.1},
		"binary of probabilities": {BinaryCrossentropy, identity, sure, target, 7, 9},
		"kl":                      {KLDivergence, identity, sure, target, 7, 9},
	} {
		for _, b := range []backend.Backend{ref.Backend{}, cpu.Backend{}} {
			loss, _, d := lossRun(t, b, c.l, c.last, c.x, c.y)
			if !(loss >= c.lo && loss <= c.hi) {
				t.Errorf("%s on %s: loss %g", name, b.Name(), loss)
			}
			for i := range d.Len() {
				if v := d.At(i); math.IsNaN(v) || math.IsInf(v, 0) {
					t.Errorf("%s on %s: gradient %v", name, b.Name(), d)
				}
			}
		}
	}
}

// Targets that do not fit are refused with what is needed.
func TestTargetsThatDoNotFit(t *testing.T) {
	f, i := graph.T(dtype.F32, 4, 3), graph.T(dtype.I32, 4)
	for name, l := range Losses {
		wrong := graph.T(dtype.F32, 4, 2)
		if why := l.target(f, wrong); !strings.Contains(why, "needs") {
			t.Errorf("%s takes targets %v for predictions %v: %q", name, wrong, f, why)
		}
		right := f
		if l.Name == "sparse_categorical_crossentropy" {
			right = i
		}
		if why := l.target(f, right); why != "" {
			t.Errorf("%s: %s", name, why)
		}
	}
	if len(Losses) != 9 {
		t.Error(fmt.Sprint("losses: ", len(Losses)))
	}
}
