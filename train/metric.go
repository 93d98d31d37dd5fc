package train

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/jouleml/joule/tensor"
)

// Metric judges predictions over an epoch.
type Metric struct {
	Name string
	make func() meter
}

// meter adds up one epoch of a metric.
type meter interface {
	// add takes a batch of predictions [n …] and targets, in order.
	add(pred, target *tensor.Tensor)
	value() float64
	// running is what has been added so far, as a pointer that JSON can write and read: a checkpoint in the middle of an epoch keeps it.
	running() any
	// join adds what another meter of the same metric has gathered.
	join(o meter)
}

// classesOf sees predictions as rows of scores.
func classesOf(pred *tensor.Tensor) (rows, classes int, p []float32) {
	sh := pred.Shape()
	c := sh[len(sh)-1]
	return sh.Size() / max(1, c), c, pred.F32()
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

// label is the class of example i: a class number, or the greatest of a row of probabilities.
func label(target *tensor.Tensor, i, classes int) int {
	if target.DType().IsInt() {
		return int(target.At(i))
	}
	if target.Len() == i+1 || classes == 1 {
		return int(math.Round(target.At(i)))
	}
	return argmax(target.F32()[i*classes:][:classes])
}

// decide is the class that a row of predictions stands for: of one number, whether it is above one half.
func decide(row []float32) int {
	if len(row) == 1 {
		if row[0] > 0.5 {
			return 1
		}
		return 0
	}
	return argmax(row)
}

type ratio struct {
	Hits, All float64
	count     func(r *ratio, pred, target *tensor.Tensor)
	verdict   func(r *ratio, v verdict, label, classes int) // nil: it takes whole predictions
	need      knows                                         // what verdict looks at
}

func (r *ratio) ofParts() (knows, bool) { return r.need, r.verdict != nil }

func (r *ratio) judge(v verdict, label, classes int) { r.verdict(r, v, label, classes) }

func (r *ratio) add(pred, target *tensor.Tensor) { r.count(r, pred, target) }

func (r *ratio) running() any { return r }

func (r *ratio) join(o meter) {
	x := o.running().(*ratio)
	r.Hits += x.Hits
	r.All += x.All
}

func (r *ratio) value() float64 { return r.Hits / max(r.All, 1) }

// Accuracy is the share of examples whose most probable class is the right one. Class numbers below 0, which stand for padding, do not count.
var Accuracy = Metric{"accuracy", func() meter {
	return &ratio{count: func(r *ratio, pred, target *tensor.Tensor) {
		n, c, p := classesOf(pred)
		for i := range n {
			l := label(target, i, c)
			if l < 0 && target.DType().IsInt() {
				continue
			}
			if decide(p[i*c:][:c]) == l {
				r.Hits++
			}
			r.All++
		}
	}, need: knowsClass, verdict: func(r *ratio, v verdict, label, _ int) {
		if label < 0 {
			return
		}
		if v.class == label {
			r.Hits++
		}
		r.All++
	}}
}}

// TopK is the share of examples whose class is among the k most probable; of equals, the first count as more probable.
func TopK(k int) Metric {
	return Metric{fmt.Sprintf("top_%d_accuracy", k), func() meter {
		return &ratio{count: func(r *ratio, pred, target *tensor.Tensor) {
			n, c, p := classesOf(pred)
			for i := range n {
				l := label(target, i, c)
				above := 0
				if l < 0 || l >= c {
					above = k
				} else {
					for j, v := range p[i*c:][:c] {
						if own := p[i*c+l]; v > own || v == own && j < l {
							above++
						}
					}
				}
				if above < k {
					r.Hits++
				}
			}
			r.All += float64(n)
		}, need: knowsAbove, verdict: func(r *ratio, v verdict, label, classes int) {
			if label >= 0 && label < classes && v.above < k {
				r.Hits++
			}
			r.All++
		}}
	}}
}

// confusion counts examples by class and decision.
type confusion struct {
	Counts [][]int64 // [class][decision]
	score  func(c [][]int64) float64
}

func (m *confusion) ofParts() (knows, bool) { return knowsClass, true }

func (m *confusion) judge(v verdict, label, classes int) {
	m.room(classes)
	if label >= 0 && label < classes && v.class < classes {
		m.Counts[label][v.class]++
	}
}

func (m *confusion) room(k int) {
	for len(m.Counts) < k {
		m.Counts = append(m.Counts, make([]int64, k))
	}
}

func (m *confusion) add(pred, target *tensor.Tensor) {
	n, c, p := classesOf(pred)
	k := max(c, 2)
	m.room(k)
	for i := range n {
		if l := label(target, i, c); l >= 0 && l < k {
			m.Counts[l][decide(p[i*c:][:c])]++
		}
	}
}

func (m *confusion) running() any { return m }

func (m *confusion) join(o meter) {
	x := o.running().(*confusion)
	for len(m.Counts) < len(x.Counts) {
		m.Counts = append(m.Counts, make([]int64, len(x.Counts)))
	}
	for i, row := range x.Counts {
		for j, n := range row {
			m.Counts[i][j] += n
		}
	}
}

func (m *confusion) value() float64 { return m.score(m.Counts) }

// perClass averages a score of each class's true positives, false positives and false negatives over the classes that occur; of two classes it is
// the score of class 1.
func perClass(score func(tp, fp, fn float64) float64) func(c [][]int64) float64 {
	return func(c [][]int64) float64 {
		sum, n := 0.0, 0.0
		for k := range c {
			var fp, fn int64
			for j := range c {
				if j != k {
					fp += c[j][k]
					fn += c[k][j]
				}
			}
			s := score(float64(c[k][k]), float64(fp), float64(fn))
			if len(c) == 2 && k == 1 {
				return s
			}
			if c[k][k]+fn > 0 {
				sum += s
				n++
			}
		}
		return sum / max(n, 1)
	}
}

func over(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Precision is true positives over all that were taken for positive; of several classes the mean over classes.
var Precision = Metric{"precision", func() meter {
	return &confusion{score: perClass(func(tp, fp, _ float64) float64 { return over(tp, tp+fp) })}
}}

// Recall is true positives over all that are positive; of several classes the mean over classes.
var Recall = Metric{"recall", func() meter {
	return &confusion{score: perClass(func(tp, _, fn float64) float64 { return over(tp, tp+fn) })}
}}

// F1 is the harmonic mean of precision and recall; of several classes the mean over classes.
var F1 = Metric{"f1", func() meter {
	return &confusion{score: perClass(func(tp, fp, fn float64) float64 { return over(2*tp, 2*tp+fp+fn) })}
}}

type auc struct{ Scores, Labels []float64 }

func (a *auc) add(pred, target *tensor.Tensor) {
	n, c, p := classesOf(pred)
	for i := range n {
		a.Scores = append(a.Scores, float64(p[i*c+c-1]))
		a.Labels = append(a.Labels, float64(label(target, i, c)))
	}
}

func (a *auc) running() any { return a }

func (a *auc) join(o meter) {
	x := o.running().(*auc)
	a.Scores, a.Labels = append(a.Scores, x.Scores...), append(a.Labels, x.Labels...)
}

// value is the share of pairs of a positive and a negative in which the positive has the higher score, ties counting half
// (Mann & Whitney 1947).
func (a *auc) value() float64 {
	ord := make([]int, len(a.Scores))
	for i := range ord {
		ord[i] = i
	}
	slices.SortFunc(ord, func(i, j int) int { return cmp.Compare(a.Scores[i], a.Scores[j]) })
	var pos, neg, won float64
	for i := 0; i < len(ord); {
		j, p, n := i, 0.0, 0.0
		for ; j < len(ord) && a.Scores[ord[j]] == a.Scores[ord[i]]; j++ {
			if a.Labels[ord[j]] == 1 {
				p++
			} else {
				n++
			}
		}
		won += p*neg + 0.5*p*n
		pos, neg = pos+p, neg+n
		i = j
	}
	if pos == 0 || neg == 0 {
		return math.NaN()
	}
	return won / (pos * neg)
}

// ROCAUC is the area under the receiver operating characteristic, for two classes. It keeps every score of the epoch.
var ROCAUC = Metric{"roc_auc", func() meter { return &auc{} }}

// logLikelihood is the mean of the logarithm of the probability that the right class was given.
func logLikelihood(name string, end func(mean float64) float64) Metric {
	return Metric{name, func() meter {
		return ended{&ratio{count: func(r *ratio, pred, target *tensor.Tensor) {
			n, c, p := classesOf(pred)
			for i := range n {
				if l := label(target, i, c); l >= 0 && l < c {
					r.Hits += math.Log(max(float64(p[i*c+l]), tiny))
					r.All++
				}
			}
		}, verdict: func(r *ratio, v verdict, label, classes int) {
			if label >= 0 && label < classes {
				r.Hits += max(v.logp, math.Log(tiny))
				r.All++
			}
		}}, end}
	}}
}

// BitsPerToken is how many bits a perfect code made from the predictions would need for a token: the mean of -log₂ of the right one's probability. Where
// tokens are characters it is bits per character.
var BitsPerToken = logLikelihood("bits_per_token", func(m float64) float64 { return -m / math.Ln2 })

// Perplexity is 2 to the power of BitsPerToken: among how many equally probable tokens a model is at a loss.
var Perplexity = logLikelihood("perplexity", func(m float64) float64 { return math.Exp(-m) })

func difference(name string, f func(d float64) float64, end func(mean float64) float64) Metric {
	return Metric{name, func() meter {
		r := &ratio{count: func(r *ratio, pred, target *tensor.Tensor) {
			for i := range pred.Len() {
				r.Hits += f(pred.At(i) - target.At(i))
			}
			r.All += float64(pred.Len())
		}}
		return ended{r, end}
	}}
}

type ended struct {
	*ratio
	end func(float64) float64
}

func (e ended) value() float64 { return e.end(e.ratio.value()) }

// MAE is the mean absolute error.
var MAE = difference("mae", math.Abs, func(m float64) float64 { return m })

// RMSE is the root of the mean squared error.
var RMSE = difference("rmse", func(d float64) float64 { return d * d }, math.Sqrt)

// Metrics are the metrics that a spec can name.
var Metrics = map[string]Metric{}

func init() {
	for _, m := range []Metric{Accuracy, TopK(5), Precision, Recall, F1, ROCAUC, MAE, RMSE, BitsPerToken, Perplexity} {
		Metrics[m.Name] = m
	}
}

// ConfusionMatrix counts examples by class (row) and decision (column).
func ConfusionMatrix(pred, target *tensor.Tensor) [][]int64 {
	m := &confusion{}
	m.add(pred, target)
	return m.Counts
}
