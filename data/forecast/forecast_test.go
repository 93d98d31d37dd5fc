package forecast_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/data/forecast"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
)

// table is a table of two columns over n rows.
func table(n int, f func(t int) (a, b float64)) *forecast.Table {
	t := &forecast.Table{Names: []string{"a", "b"}}
	for i := range n {
		a, b := f(i)
		t.Times, t.Values = append(t.Times, fmt.Sprint("t", i)), append(t.Values, []float64{a, b})
	}
	return t
}

func folds(t *testing.T, tab *forecast.Table, c forecast.Config, n int) []forecast.Fold {
	t.Helper()
	s, err := forecast.Prepare(tab, c)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Folds(n)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func example(t *testing.T, w *forecast.Windows, i int) (x, y []float32) {
	t.Helper()
	xs, ys := w.Spec().Tensors(1)
	if err := w.Fill([]int{i}, xs, ys); err != nil {
		t.Fatal(err)
	}
	return xs[0].F32(), ys[0].F32()
}

// A window is the rows before what is forecast; no training window knows a row of the test part, and nothing that is fitted depends on one.
func TestWindows(t *testing.T) {
	f := func(i int) (float64, float64) { return float64(i), float64(i * i) }
	for _, n := range []int{1, 3} {
		parts := folds(t, table(40, f), forecast.Config{Length: 4, Horizon: 2, Targets: []string{"b"}, Test: 0.3}, n)
		next := 28
		for k, p := range parts {
			if p.Train.Len() != next-4-1 || p.Test.Len() < 2 {
				t.Fatalf("fold %d of %d: %d training and %d test windows", k, n, p.Train.Len(), p.Test.Len())
			}
			// Normalised with the rows before next alone.
			mean, square := 0.0, 0.0
			for i := range next {
				mean += float64(i*i) / float64(next)
			}
			for i := range next {
				d := float64(i*i) - mean
				square += d * d / float64(next)
			}
			std := math.Sqrt(square)
			check := func(what string, w *forecast.Windows, i, first int) {
				x, y := example(t, w, i)
				for r := range 4 {
					if want := (float64((first+r)*(first+r)) - mean) / std; math.Abs(float64(x[2*r+1])-want) > 1e-5 {
						t.Errorf("fold %d, %s %d, row %d is %g, want %g", k, what, i, r, x[2*r+1], want)
					}
				}
				for h := range 2 {
					v := first + 4 + h
					if want := (float64(v*v) - mean) / std; math.Abs(float64(y[h])-want) > 1e-5 {
						t.Errorf("fold %d, %s %d, forecast %d is %g, want %g", k, what, i, h, y[h], want)
					}
				}
			}
			check("training window", p.Train, 0, 0)
			check("training window", p.Train, p.Train.Len()-1, next-6) // its last row forecast is next-1
			check("test window", p.Test, 0, next-4)
			check("test window", p.Test, p.Test.Len()-1, next-4+p.Test.Len()-1)
			from, to := p.Test.Span()
			if from != fmt.Sprint("t", next) {
				t.Errorf("fold %d forecasts %s to %s", k, from, to)
			}
			next += 12 / n
		}
	}
	// Another future, the same training part.
	a := folds(t, table(40, f), forecast.Config{Length: 4}, 1)[0].Train
	b := folds(t, table(40, func(i int) (float64, float64) {
		x, y := f(i)
		if i >= 32 {
			return 1e6, -1e6
		}
		return x, y
	}), forecast.Config{Length: 4}, 1)[0].Train
	for i := range a.Len() {
		x, y := example(t, a, i)
		u, v := example(t, b, i)
		if fmt.Sprint(x, y) != fmt.Sprint(u, v) {
			t.Fatalf("training window %d depends on the test part", i)
		}
	}
}

// The changes of a column are what is forecast.
func TestChanges(t *testing.T) {
	tab := table(30, func(i int) (float64, float64) { return math.Exp(0.1 * float64(i%3)), float64(3 * i) })
	for change, want := range map[forecast.Change][2]float64{forecast.Logarithms: {0.1, math.Log(6.0 / 3)}, forecast.Differences: {math.Exp(0.1*2) - math.Exp(0.1), 3}} {
		tab.Values[0][1] = 1 // for the logarithm
		f := folds(t, tab, forecast.Config{Length: 3, Change: change}, 1)[0]
		// Row 1 of the changes is that of row 2 of the table.
		r, err := forecast.Walk([]forecast.Fold{f}, func(int, forecast.Fold) (*tensor.Tensor, error) { return tensor.New(dtype.F32, f.Test.Len(), 2), nil })
		if err != nil || r.Forecasts != f.Test.Len() {
			t.Fatalf("%s: %+v, %v", change, r, err)
		}
		x, _ := example(t, f.Train, 0)
		y, _ := example(t, f.Train, 3) // three rows later the first column's changes are the same
		if math.Abs(float64(x[2]-y[2])) > 1e-6 || x[2] == x[0] && want[0] == want[1] {
			t.Errorf("%s: windows %v and %v", change, x, y)
		}
	}
}

// Forecasts that are right have no error, those of no change that of the last value; least squares find a process that follows from its past; and the verdict says what is so.
func TestWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	a, b := 0.0, 0.0
	series := table(1500, func(int) (float64, float64) {
		a, b = 0.5*a+0.4*b+0.1*rng.NormFloat64(), 0.9*b+0.1*rng.NormFloat64()
		return a, b
	})
	parts := folds(t, series, forecast.Config{Length: 6, Targets: []string{"a"}}, 3)
	truth := func(_ int, f forecast.Fold) (*tensor.Tensor, error) {
		p := tensor.New(dtype.F32, f.Test.Len(), 1)
		for i := range f.Test.Len() {
			_, y := example(t, f.Test, i)
			p.Set(i, float64(y[0]))
		}
		return p, nil
	}
	r, err := forecast.Walk(parts, truth)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Scores) != 3 || r.Scores[0].Skill != 0 || r.Scores[2].RMSE > 1e-6 || r.Scores[2].Skill < 0.999 || r.Folds != 3 || r.Forecasts != 300 || r.First != "t1200" || r.Last != "t1499" {
		t.Errorf("%+v", r)
	}
	if s := r.Scores[1]; s.RMSE < 0.08 || s.RMSE > 0.115 || s.Skill < 0.1 || s.T < 2 { // its noise is 0.1
		t.Errorf("least squares: %+v", s)
	}
	if v := r.Verdict(); !strings.Contains(v, "beats the baseline last value and the baseline linear") || !strings.Contains(v, "more than chance") {
		t.Error(v)
	}
	bad, err := forecast.Walk(parts, func(i int, f forecast.Fold) (*tensor.Tensor, error) {
		p, err := truth(i, f)
		for k := range p.Len() {
			p.Set(k, p.At(k)+rng.NormFloat64()*3)
		}
		return p, err
	})
	if err != nil {
		t.Fatal(err)
	}
	if v := bad.Verdict(); !strings.Contains(v, "does not beat the baseline last value nor the baseline linear") || bad.Scores[2].T > -2 {
		t.Error(v, bad.Scores[2])
	}
	if _, err := forecast.Walk(parts, func(_ int, f forecast.Fold) (*tensor.Tensor, error) { return tensor.New(dtype.F32, 1), nil }); err == nil {
		t.Error("one forecast for many was taken")
	}
}

func TestStocks(t *testing.T) {
	s, err := forecast.Stocks()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Times) != 3270 || s.Times[0] != "2000-03-01" || s.Times[3269] != "2013-03-01" || len(s.Names) != 6 || math.Abs(s.Values[0][0]-4.186662803811) > 1e-12 || s.Values[0][3] != 9616100 {
		t.Errorf("%d rows from %s to %s, columns %v, first row %v", len(s.Times), s.Times[0], s.Times[len(s.Times)-1], s.Names, s.Values[0])
	}
}

func TestErrors(t *testing.T) {
	good := table(50, func(i int) (float64, float64) { return float64(i), 1 })
	for want, c := range map[string]forecast.Config{
		`no column "c"`:     {Targets: []string{"c"}},
		"must be at least":  {Length: -1},
		"between 0 and 1":   {Test: 2},
		"unknown change":    {Change: "square"},
		"values above 0":    {Change: forecast.Logarithms},
		"too few for 1 fol": {Length: 45},
	} {
		s, err := forecast.Prepare(good, c)
		if err == nil {
			_, err = s.Folds(1)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: error %v, want %q", c, err, want)
		}
	}
	s, err := forecast.Prepare(good, forecast.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, -1, 11} {
		if _, err := s.Folds(n); err == nil {
			t.Errorf("%d folds were made", n)
		}
	}
	for text, want := range map[string]string{"": "names the columns", "day,x\n1,2\n2,oops\n": `f.csv:3: column x: "oops"`, "x\n1\n": `no column "day"`, "day,x\n1\n": "wrong number of fields"} {
		path := filepath.Join(t.TempDir(), "f.csv")
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := forecast.Open(path, "day"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}
