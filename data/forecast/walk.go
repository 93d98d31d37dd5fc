package forecast

import (
	"fmt"
	"math"
	"strings"

	"github.com/jouleml/joule/tensor"
)

// Score is how far off a forecast was, in units of the forecast columns (of Logarithms: 0.01 is one percent).
type Score struct {
	Name string  `json:"name"`
	RMSE float64 `json:"rmse"`
	MAE  float64 `json:"mae"`
	// Skill is 1 - MSE/MSE of the last value: the share of its error that the forecast saves; negative if it is worse.
	Skill float64 `json:"skill"`
	// T is the statistic of Diebold & Mariano (1995) of the squared errors against those of the last value: positive if the forecast is better, beyond ±2 more than chance would explain.
	T float64 `json:"t"`
}

// Report compares a model with the baselines on the same forecasts.
type Report struct {
	First     string  `json:"first"` // labels of the rows that were forecast
	Last      string  `json:"last"`
	Forecasts int     `json:"forecasts"`
	Folds     int     `json:"folds"`
	Scores    []Score `json:"scores"` // the last value, linear, the model
}

// The baselines.
const (
	LastValue = "last value"
	Linear    = "linear"
	TheModel  = "model"
)

// linearRows is how many rows back the linear baseline looks.
const linearRows = 5

// Walk asks for forecasts of each fold in turn, [examples, Horizon·targets] in the normalised units of the fold's Windows, and compares them all with two baselines: the last value (of a
// Change: no change), and least squares on the last rows of all columns, fitted like the model to each fold's training part.
func Walk(folds []Fold, predict func(i int, f Fold) (*tensor.Tensor, error)) (*Report, error) {
	if len(folds) == 0 {
		return nil, fmt.Errorf("forecast: there are no folds")
	}
	var errs [3][][]float64 // of each method and forecast: its errors
	for i, f := range folds {
		p, err := predict(i, f)
		if err != nil {
			return nil, err
		}
		n, k := f.Test.Len(), f.Test.spec.Targets[0].Shape.Size()
		if p.Len() != n*k {
			return nil, fmt.Errorf("forecast: %d forecasts of %d values were asked for, %v were given", n, k, p.Shape())
		}
		lin, err := fitLinear(f.Train)
		if err != nil {
			return nil, err
		}
		for e := range n {
			var out [3][]float64
			at := f.Test.lo + e
			for h := range f.Test.cfg.Horizon {
				for j, c := range f.Test.targets {
					truth := f.Test.x[at+h][c]
					last := 0.0
					if f.Test.cfg.Change == None {
						last = f.Test.x[at-1][c]
					}
					o := h*len(f.Test.targets) + j
					model := p.At(e*k+o)*f.Test.std[c] + f.Test.mean[c]
					for m, v := range []float64{last, lin.at(f.Test, at, o), model} {
						out[m] = append(out[m], v-truth)
					}
				}
			}
			for m := range out {
				errs[m] = append(errs[m], out[m])
			}
		}
	}
	r := &Report{Forecasts: len(errs[0]), Folds: len(folds)}
	r.First, _ = folds[0].Test.Span()
	_, r.Last = folds[len(folds)-1].Test.Span()
	for m, name := range []string{LastValue, Linear, TheModel} {
		r.Scores = append(r.Scores, score(name, errs[m], errs[0]))
	}
	return r, nil
}

func score(name string, errs, base [][]float64) Score {
	s := Score{Name: name}
	var square, baseSquare, sum, sum2, n float64
	for i, e := range errs {
		d := 0.0
		for k, v := range e {
			square += v * v
			s.MAE += math.Abs(v)
			b := base[i][k]
			baseSquare += b * b
			d += (b*b - v*v) / float64(len(e))
			n++
		}
		sum += d
		sum2 += d * d
	}
	s.RMSE, s.MAE = math.Sqrt(square/n), s.MAE/n
	if baseSquare > 0 {
		s.Skill = 1 - square/baseSquare
	}
	m := float64(len(errs))
	if v := sum2/m - sum/m*sum/m; v > 0 {
		s.T = sum / m / math.Sqrt(v/m)
	}
	return s
}

// Verdict says plainly whether the model is better than each baseline.
func (r *Report) Verdict() string {
	model := r.Scores[len(r.Scores)-1]
	var lost, won []string
	for _, s := range r.Scores[:len(r.Scores)-1] {
		if model.RMSE < s.RMSE {
			won = append(won, s.Name)
		} else {
			lost = append(lost, s.Name)
		}
	}
	var out []string
	if len(lost) > 0 {
		out = append(out, "the model does not beat the baseline "+strings.Join(lost, " nor the baseline "))
	}
	if len(won) > 0 {
		how := "its errors are smaller than those of the baseline " + strings.Join(won, " and of the baseline ")
		if len(lost) == 0 {
			how = "the model beats the baseline " + strings.Join(won, " and the baseline ")
		}
		out = append(out, how)
	}
	switch {
	case math.Abs(model.T) < 2:
		out = append(out, fmt.Sprintf("its difference to the last value is within what chance explains (t = %.2f)", model.T))
	default:
		out = append(out, fmt.Sprintf("its difference to the last value is more than chance explains (t = %.2f)", model.T))
	}
	return strings.Join(out, "; ")
}

// String is the comparison as a table.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d forecasts from %s to %s, %d times trained anew\n%-12s %12s %12s %8s %7s\n", r.Forecasts, r.First, r.Last, r.Folds, "forecast", "RMSE", "MAE", "skill", "t")
	for _, s := range r.Scores {
		fmt.Fprintf(&b, "%-12s %12.6g %12.6g %+7.2f%% %7.2f\n", s.Name, s.RMSE, s.MAE, 100*s.Skill, s.T)
	}
	b.WriteString(r.Verdict() + "\n")
	return b.String()
}

// linear is least squares with a little ridge on the last rows.
type linear struct {
	rows int
	w    [][]float64 // [output][features and 1]
}

func fitLinear(w *Windows) (*linear, error) {
	l := &linear{rows: min(linearRows, w.cfg.Length)}
	k := l.rows*len(w.names) + 1
	outs := w.cfg.Horizon * len(w.targets)
	a, b := make([][]float64, k), make([][]float64, outs)
	for i := range a {
		a[i] = make([]float64, k)
		a[i][i] = 1e-6 // columns that are copies of each other
	}
	for o := range b {
		b[o] = make([]float64, k)
	}
	for e := range w.Len() {
		at := w.lo + e
		f := l.features(w, at)
		for i, u := range f {
			for j, v := range f {
				a[i][j] += u * v
			}
			for o := range outs {
				c := w.targets[o%len(w.targets)]
				b[o][i] += u * (w.x[at+o/len(w.targets)][c] - w.mean[c]) / w.std[c]
			}
		}
	}
	if err := cholesky(a); err != nil {
		return nil, err
	}
	for o := range b {
		l.w = append(l.w, solve(a, b[o]))
	}
	return l, nil
}

// features are the last rows before row at, normalised, and 1.
func (l *linear) features(w *Windows, at int) []float64 {
	var f []float64
	for _, row := range w.x[at-l.rows : at] {
		for c, v := range row {
			f = append(f, (v-w.mean[c])/w.std[c])
		}
	}
	return append(f, 1)
}

// at is the forecast of output o for row at on, in units of its column.
func (l *linear) at(w *Windows, at, o int) float64 {
	s := 0.0
	for i, v := range l.features(w, at) {
		s += v * l.w[o][i]
	}
	c := w.targets[o%len(w.targets)]
	return s*w.std[c] + w.mean[c]
}

// cholesky replaces the lower half of a by L of a = L·Lᵀ.
func cholesky(a [][]float64) error {
	for i := range a {
		for j := range i + 1 {
			s := a[i][j]
			for k := range j {
				s -= a[i][k] * a[j][k]
			}
			switch {
			case i != j:
				a[i][j] = s / a[j][j]
			case !(s > 0):
				return fmt.Errorf("forecast: the linear baseline cannot be fitted: column %d of its matrix follows from others", i)
			default:
				a[i][i] = math.Sqrt(s)
			}
		}
	}
	return nil
}

// solve is x of L·Lᵀ·x = b.
func solve(l [][]float64, b []float64) []float64 {
	n := len(b)
	x := make([]float64, n)
	for i := range n {
		s := b[i]
		for k := range i {
			s -= l[i][k] * x[k]
		}
		x[i] = s / l[i][i]
	}
	for i := n - 1; i >= 0; i-- {
		s := x[i]
		for k := i + 1; k < n; k++ {
			s -= l[k][i] * x[k]
		}
		x[i] = s / l[i][i]
	}
	return x
}
