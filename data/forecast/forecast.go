// Package forecast makes data sets of time series that are to be continued: an example is a window of the past, its targets what comes next.
//
// Terminology: a Table has a row for each time and a column for each series. With a Change, columns are replaced by their changes from row to row, which is what prices need: their level
// wanders off, and a model that has learned the level of the training part knows nothing of later ones. Everything that is fitted (means, deviations, baselines) is fitted to the training
// part alone, which lies before the test part; a test window may look back into the training part, as a forecast at that time could.
package forecast

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// Table is several series over the same times.
type Table struct {
	Names  []string
	Times  []string    // labels of the rows, for reports; as many as there are rows
	Values [][]float64 // [row][column]
}

// ReadCSV reads a table whose first line names the columns and whose rows are in the order of time. The column time ("": none) labels the rows; columns are the series to read (none: all
// others). file is named in errors.
func ReadCSV(r io.Reader, file, time string, columns ...string) (*Table, error) {
	in := csv.NewReader(r)
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("forecast: %s: the line that names the columns: %w", file, err)
	}
	at := func(name string) (int, error) {
		i := slices.Index(head, name)
		if i < 0 {
			return 0, fmt.Errorf("forecast: %s has no column %q (columns: %s)", file, name, strings.Join(head, ", "))
		}
		return i, nil
	}
	timeAt := -1
	if time != "" {
		if timeAt, err = at(time); err != nil {
			return nil, err
		}
	}
	t := &Table{}
	var from []int
	if len(columns) == 0 {
		for i, n := range head {
			if i != timeAt {
				t.Names, from = append(t.Names, n), append(from, i)
			}
		}
	}
	for _, n := range columns {
		i, err := at(n)
		if err != nil {
			return nil, err
		}
		t.Names, from = append(t.Names, n), append(from, i)
	}
	for {
		rec, err := in.Read()
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("forecast: %s: %w", file, err)
		}
		line, _ := in.FieldPos(0)
		row := make([]float64, len(from))
		for k, i := range from {
			v, err := strconv.ParseFloat(strings.TrimSpace(rec[i]), 64)
			if err != nil || v-v != 0 {
				return nil, fmt.Errorf("forecast: %s:%d: column %s: %q is no finite number", file, line, head[i], rec[i])
			}
			row[k] = v
		}
		label := strconv.Itoa(len(t.Values))
		if timeAt >= 0 {
			label = rec[timeAt]
		}
		t.Times, t.Values = append(t.Times, label), append(t.Values, row)
	}
}

// Open reads a CSV file; see ReadCSV.
func Open(path, time string, columns ...string) (*Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("forecast: %w", err)
	}
	defer f.Close()
	return ReadCSV(f, path, time, columns...)
}

// Change says what of a column is forecast.
type Change string

// The changes. Logarithms need values above 0.
const (
	None        Change = ""     // the values themselves
	Differences Change = "diff" // x_t - x_{t-1}
	Logarithms  Change = "log"  // ln x_t - ln x_{t-1}: for prices the return
)

// Config says how a table becomes examples.
type Config struct {
	Length  int      // rows of a window; 0: 30
	Horizon int      // rows after it that are forecast; 0: 1
	Targets []string // the columns that are forecast; none: all
	Change  Change
	Test    float64 // share of the rows, at the end, that is the test part; 0: 0.2
}

// Windows are the examples of a part of a table: input "window" f32 [Length, columns], target "next" f32 [Horizon·targets], row after row. Both are normalised by the means and
// deviations of the training part.
type Windows struct {
	spec      data.Spec
	cfg       Config
	names     []string // of all columns
	times     []string // of the rows of x
	x         [][]float64
	targets   []int
	mean, std []float64
	lo, hi    int // the first row that is forecast is lo; the last window ends before hi
}

// Series are a table's rows after its Change, ready to be cut into parts.
type Series struct {
	cfg     Config
	names   []string
	times   []string
	x       [][]float64
	targets []int
}

// Prepare checks a configuration against a table and takes the changes of its columns.
func Prepare(t *Table, c Config) (*Series, error) {
	if c.Length == 0 {
		c.Length = 30
	}
	if c.Horizon == 0 {
		c.Horizon = 1
	}
	if c.Test == 0 {
		c.Test = 0.2
	}
	if c.Length < 1 || c.Horizon < 1 || !(c.Test > 0 && c.Test < 1) {
		return nil, fmt.Errorf("forecast: length %d and horizon %d must be at least 1, and the test part %g between 0 and 1", c.Length, c.Horizon, c.Test)
	}
	s := &Series{cfg: c, names: t.Names}
	if len(c.Targets) == 0 {
		c.Targets = t.Names
	}
	for _, n := range c.Targets {
		i := slices.Index(t.Names, n)
		if i < 0 {
			return nil, fmt.Errorf("forecast: there is no column %q to forecast (columns: %s)", n, strings.Join(t.Names, ", "))
		}
		s.targets = append(s.targets, i)
	}
	switch c.Change {
	case None:
		s.x, s.times = t.Values, t.Times
	case Differences, Logarithms:
		for r := 1; r < len(t.Values); r++ {
			row := make([]float64, len(t.Names))
			for i := range row {
				a, b := t.Values[r-1][i], t.Values[r][i]
				if c.Change == Logarithms {
					if !(a > 0 && b > 0) {
						return nil, fmt.Errorf("forecast: column %s at %s: logarithms of changes need values above 0, not %g after %g", t.Names[i], t.Times[r], b, a)
					}
					a, b = math.Log(a), math.Log(b)
				}
				row[i] = b - a
			}
			s.x, s.times = append(s.x, row), append(s.times, t.Times[r])
		}
	default:
		return nil, fmt.Errorf("forecast: unknown change %q (known: %s, %s)", c.Change, Differences, Logarithms)
	}
	return s, nil
}

// Fold is a training part and the test part that follows it.
type Fold struct{ Train, Test *Windows }

// Folds cuts the test part into n pieces of the same length (the last may be longer); each is a Fold with everything before it as training part: walk-forward evaluation.
func (s *Series) Folds(n int) ([]Fold, error) {
	rows := len(s.x)
	cut := rows - int(float64(rows)*s.cfg.Test)
	step := 0
	if n > 0 {
		step = (rows - cut) / n
	}
	if n < 1 || cut < s.cfg.Length+s.cfg.Horizon || step < s.cfg.Horizon {
		return nil, fmt.Errorf("forecast: %d rows of which %d are the test part are too few for %d folds with windows of %d and %d to forecast: shorten length, or take fewer folds", rows, rows-cut, n,
			s.cfg.Length, s.cfg.Horizon)
	}
	var out []Fold
	for i := range n {
		lo, hi := cut+i*step, cut+(i+1)*step
		if i == n-1 {
			hi = rows
		}
		mean, std := s.fit(lo)
		part := func(lo, hi int) *Windows {
			field := func(name string, dims ...int) []data.Field {
				return []data.Field{{Name: name, Shape: shape.Of(dims...), DType: dtype.F32}}
			}
			spec := data.Spec{Inputs: field("window", s.cfg.Length, len(s.names)), Targets: field("next", s.cfg.Horizon*len(s.targets))}
			return &Windows{spec, s.cfg, s.names, s.times, s.x, s.targets, mean, std, lo, hi}
		}
		out = append(out, Fold{part(s.cfg.Length, lo), part(lo, hi)})
	}
	return out, nil
}

// Set is the one fold whose test part is all of it, as a data set.
func (s *Series) Set(name string) (*data.Set, error) {
	f, err := s.Folds(1)
	if err != nil {
		return nil, err
	}
	return &data.Set{Name: name, Train: f[0].Train, Test: f[0].Test}, nil
}

// fit is mean and deviation of each column over the first n rows; a column that does not vary has the deviation 1.
func (s *Series) fit(n int) (mean, std []float64) {
	mean, std = make([]float64, len(s.names)), make([]float64, len(s.names))
	for i := range s.names {
		for _, row := range s.x[:n] {
			mean[i] += row[i] / float64(n)
		}
		for _, row := range s.x[:n] {
			std[i] += (row[i] - mean[i]) * (row[i] - mean[i]) / float64(n)
		}
		if std[i] = math.Sqrt(std[i]); std[i] == 0 {
			std[i] = 1
		}
	}
	return mean, std
}

// Spec implements data.Dataset.
func (w *Windows) Spec() data.Spec { return w.spec }

// Len implements data.Dataset.
func (w *Windows) Len() int { return max(0, w.hi-w.lo-w.cfg.Horizon+1) }

// Fill implements data.Dataset.
func (w *Windows) Fill(idx []int, x, y []*tensor.Tensor) error {
	in, next := x[0].F32(), y[0].F32()
	k, j := 0, 0
	for _, i := range idx {
		at := w.lo + i
		for _, row := range w.x[at-w.cfg.Length : at] {
			for c, v := range row {
				in[k] = float32((v - w.mean[c]) / w.std[c])
				k++
			}
		}
		for _, row := range w.x[at : at+w.cfg.Horizon] {
			for _, c := range w.targets {
				next[j] = float32((row[c] - w.mean[c]) / w.std[c])
				j++
			}
		}
	}
	return nil
}

// Span is the labels of the first and the last row that is forecast.
func (w *Windows) Span() (first, last string) { return w.times[w.lo], w.times[w.hi-1] }
