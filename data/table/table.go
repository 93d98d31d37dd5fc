// Package table reads tables in CSV files as data sets: columns of numbers, columns of categories, and one column to predict.
//
// Every column is looked at first. A column whose values are all numbers is numeric and becomes one f32; any other is categorical and
// becomes one f32 for each category (one-hot), or its number. The column to predict becomes class numbers (i32) or one f32. The first line
// names the columns. Errors name the file, the line and the column.
package table

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
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

// Missing says what to do about a cell without a value.
type Missing int

// The policies. A cell has no value when it is empty or "?", "NA", "N/A", "NaN", "null" or "none" in any case.
const (
	Refuse Missing = iota // an error that names the line
	Drop                  // leave out the row
	Impute                // the column's mean, or a category of its own; a row without a target is left out
)

// Kind is what a column holds.
type Kind int

// The kinds of columns. Auto is Number when every value is a number and Category otherwise.
const (
	Auto Kind = iota
	Number
	Category
	Ignore // not part of the data set
)

// Config says how to read a table. The zero value predicts the last column of a comma-separated file with a header.
type Config struct {
	Target   string          // the column to predict; "": the last one
	Classify bool            // predict classes even though the target is numbers; a target that is no number always means classes
	Columns  map[string]Kind // for single columns, what is not to be found out
	Missing  Missing
	Codes    bool // give a category as its number, one f32, in place of one-hot
	NoHeader bool // the first line is data, and the columns are called "1", "2", …
	Comma    rune // 0: ','
}

// Column is one column as it was understood.
type Column struct {
	Name       string
	Kind       Kind     // Number, Category or Ignore
	Categories []string // in order of their numbers; with Impute the last may be "", for a missing value
	Mean       float64  // of a numeric column's values that are not missing

	width int            // values in the input
	code  map[string]int // Categories by name
}

// Table is a data set with one input, "features" (f32, one axis), and one target.
type Table struct {
	data.Dataset
	Columns []Column // all of the file's
	Target  int      // which of Columns is predicted
	Dropped int      // rows left out for a missing value

	cfg Config
}

// Label is the class of row i; 0 when the target is a number.
func (t *Table) Label(i int) int { return t.Dataset.(data.Labeler).Label(i) }

// maxWidth bounds the values of one example: a column of names or numbers of customers, one-hot, is a mistake that would fill the memory.
const maxWidth = 1 << 14

// maxValues bounds the values of all rows (4 GiB of f32), since a byte of a file can stand for many values of a one-hot column.
const maxValues = 1 << 30

// Open reads the file at path twice: to understand its columns, and to fill the tensors.
func Open(path string, cfg Config) (*Table, error) {
	return open(path, func() (io.ReadCloser, error) { return os.Open(path) }, cfg)
}

// OpenLike reads another file with the columns, categories and means of t, as a test file needs. A category that t does not know is an error;
// with Impute it counts as missing.
func (t *Table) OpenLike(path string) (*Table, error) {
	like := &Table{Columns: t.Columns, Target: t.Target, cfg: t.cfg}
	if err := like.fill(path, func() (io.ReadCloser, error) { return os.Open(path) }); err != nil {
		return nil, err
	}
	return like, nil
}

func open(name string, file func() (io.ReadCloser, error), cfg Config) (*Table, error) {
	t := &Table{cfg: cfg}
	if err := t.understand(name, file); err != nil {
		return nil, err
	}
	if err := t.fill(name, file); err != nil {
		return nil, err
	}
	return t, nil
}

// rows calls header with the column names and each with the trimmed cells of every row. The cells are valid during the call.
func (t *Table) rows(name string, file func() (io.ReadCloser, error), header func([]string) error, each func(r *csv.Reader, row []string) error) error {
	f, err := file()
	if err != nil {
		return fmt.Errorf("table: %w", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	r.TrimLeadingSpace = true
	if t.cfg.Comma != 0 {
		r.Comma = t.cfg.Comma
	}
	first := true
	for {
		row, err := r.Read()
		if err == io.EOF {
			if first {
				return fmt.Errorf("table: %s: line 1: the file is empty", name)
			}
			return nil
		}
		if err != nil {
			if errors.Is(err, csv.ErrFieldCount) {
				line, _ := r.FieldPos(0)
				return fmt.Errorf("table: %s: line %d: %d columns, the lines before have %d: %w", name, line, len(row), r.FieldsPerRecord, csv.ErrFieldCount)
			}
			return fmt.Errorf("table: %s: %w", name, err) // names the line and column itself
		}
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		if first {
			first = false
			names := slices.Clone(row)
			names[0] = strings.TrimPrefix(names[0], "\ufeff") // a byte order mark, as spreadsheets write
			if t.cfg.NoHeader {
				for i := range names {
					names[i] = strconv.Itoa(i + 1)
				}
			}
			if err := header(names); err != nil {
				return fmt.Errorf("table: %s: line 1: %w", name, err)
			}
			if !t.cfg.NoHeader {
				continue
			}
			row[0] = strings.TrimPrefix(row[0], "\ufeff")
		}
		if err := each(r, row); err != nil {
			return err
		}
	}
}

// missing reports whether a cell has no value.
func missing(cell string) bool {
	switch strings.ToLower(cell) {
	case "", "?", "na", "n/a", "nan", "null", "none":
		return true
	}
	return false
}

// number parses a finite number that f32 can hold.
func number(cell string) (float64, bool) {
	v, err := strconv.ParseFloat(cell, 64)
	return v, err == nil && math.Abs(v) <= math.MaxFloat32
}

// at names a cell for an error.
func (t *Table) at(name string, r *csv.Reader, i int) string {
	line, _ := r.FieldPos(i)
	return fmt.Sprintf("table: %s: line %d: column %q", name, line, t.Columns[i].Name)
}

// understand finds the kind, the categories and the mean of each column.
func (t *Table) understand(name string, file func() (io.ReadCloser, error)) error {
	var sums []float64
	var counts []int
	var values []map[string]bool // distinct values; nil when there are too many for categories
	var notNumber []string       // where the first cell is that is no number
	err := t.rows(name, file, func(names []string) error {
		t.Columns = make([]Column, len(names))
		sums, counts, values, notNumber = make([]float64, len(names)), make([]int, len(names)), make([]map[string]bool, len(names)), make([]string, len(names))
		for i, n := range names {
			values[i] = map[string]bool{}
			t.Columns[i] = Column{Name: n, Kind: t.cfg.Columns[n]}
			if slices.Index(names, n) != i {
				return fmt.Errorf("two columns are called %q", n)
			}
		}
		for _, n := range slices.Sorted(maps.Keys(t.cfg.Columns)) {
			if !slices.Contains(names, n) {
				return fmt.Errorf("there is no column %q (columns: %s)", n, strings.Join(names, ", "))
			}
		}
		t.Target = len(names) - 1
		if t.cfg.Target != "" {
			if t.Target = slices.Index(names, t.cfg.Target); t.Target < 0 {
				return fmt.Errorf("there is no column %q to predict (columns: %s)", t.cfg.Target, strings.Join(names, ", "))
			}
		}
		target := &t.Columns[t.Target]
		if target.Kind == Ignore {
			return fmt.Errorf("column %q is both ignored and to be predicted", target.Name)
		}
		if t.cfg.Classify {
			target.Kind = Category
		}
		return nil
	}, func(r *csv.Reader, row []string) error {
		for i, cell := range row {
			if t.Columns[i].Kind == Ignore || missing(cell) {
				continue
			}
			if values[i] != nil && !values[i][cell] {
				values[i][strings.Clone(cell)] = true
				if len(values[i]) > maxWidth {
					values[i] = nil
				}
			}
			v, ok := number(cell)
			if !ok && notNumber[i] == "" {
				notNumber[i] = fmt.Sprintf("%s: %q is no finite number", t.at(name, r, i), cell)
			}
			sums[i] += v
			counts[i]++
		}
		return nil
	})
	if err != nil {
		return err
	}
	width := 0
	for i := range t.Columns {
		c := &t.Columns[i]
		switch {
		case c.Kind == Ignore:
			continue
		case c.Kind == Number && notNumber[i] != "":
			return errors.New(notNumber[i])
		case c.Kind == Auto && notNumber[i] == "":
			c.Kind = Number
		case c.Kind == Auto:
			c.Kind = Category
		}
		if c.Kind == Number {
			if counts[i] > 0 {
				c.Mean = sums[i] / float64(counts[i])
			}
			c.width = 1
		} else {
			if values[i] == nil {
				return fmt.Errorf("table: %s: column %q has more than %d different values, too many for categories: ignore it or make it numbers", name, c.Name, maxWidth)
			}
			c.setCategories(slices.Collect(maps.Keys(values[i])), t.cfg.Missing == Impute && i != t.Target, t.cfg.Codes)
		}
		if i != t.Target {
			width += c.width
		}
		if width > maxWidth {
			return fmt.Errorf("table: %s: column %q: an example would have more than %d values: ignore columns that only name things, or use codes in place of one-hot", name, c.Name, maxWidth)
		}
	}
	if width == 0 {
		return fmt.Errorf("table: %s: no column is left to predict %q from", name, t.Columns[t.Target].Name)
	}
	return nil
}

// setCategories sorts the values, as numbers when they all are, and numbers them.
func (c *Column) setCategories(values []string, withMissing, codes bool) {
	slices.SortFunc(values, func(a, b string) int {
		x, okx := number(a)
		y, oky := number(b)
		switch {
		case okx && oky && x < y, okx && !oky:
			return -1
		case okx && oky && x > y, !okx && oky:
			return 1
		}
		return strings.Compare(a, b)
	})
	if withMissing {
		values = append(values, "")
	}
	c.Categories, c.code = values, map[string]int{}
	for i, v := range values {
		c.code[v] = i
	}
	c.width = len(values)
	if codes {
		c.width = 1
	}
}

// fill reads the rows into tensors.
func (t *Table) fill(name string, file func() (io.ReadCloser, error)) error {
	target := &t.Columns[t.Target]
	var x []float32
	var yClass []int32
	var yValue []float32
	width := 0
	for i, c := range t.Columns {
		if i != t.Target {
			width += c.width
		}
	}
	err := t.rows(name, file, func(names []string) error {
		if !slices.EqualFunc(names, t.Columns, func(n string, c Column) bool { return n == c.Name }) {
			return fmt.Errorf("the columns are %s, not the %d that the first table has", strings.Join(names, ", "), len(t.Columns))
		}
		return nil
	}, func(r *csv.Reader, row []string) error {
		start := len(x)
		if start+width > maxValues {
			line, _ := r.FieldPos(0)
			return fmt.Errorf("table: %s: line %d: more than %d values of %d each row: ignore columns of many categories, or use codes in place of one-hot", name, line, maxValues, width)
		}
		var y float64
		for i, cell := range row {
			c := &t.Columns[i]
			if c.Kind == Ignore {
				continue
			}
			v, has, err := c.value(cell, t.cfg.Missing == Impute)
			if err != nil {
				return fmt.Errorf("%s: %w", t.at(name, r, i), err)
			}
			if !has {
				switch {
				case t.cfg.Missing == Refuse:
					return fmt.Errorf("%s: no value (drop such rows or let the values be imputed)", t.at(name, r, i))
				case t.cfg.Missing == Drop || i == t.Target:
					x = x[:start]
					t.Dropped++
					return nil
				case c.Kind == Number:
					v = c.Mean
				default:
					v = float64(c.code[""])
				}
			}
			switch {
			case i == t.Target:
				y = v
			case c.width == 1 && (c.Kind == Number || t.cfg.Codes):
				x = append(x, float32(v))
			default:
				n := len(x)
				x = append(x, make([]float32, c.width)...)
				x[n+int(v)] = 1
			}
		}
		if target.Kind == Category {
			yClass = append(yClass, int32(y))
		} else {
			yValue = append(yValue, float32(y))
		}
		return nil
	})
	if err != nil {
		return err
	}
	n := len(yClass) + len(yValue)
	if n == 0 {
		return fmt.Errorf("table: %s: no rows (%d left out for missing values)", name, t.Dropped)
	}
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "features", Shape: shape.Of(width), DType: dtype.F32}},
		Targets: []data.Field{{Name: target.Name, Shape: shape.Of(), DType: dtype.I32}},
		Classes: len(target.Categories), ClassNames: target.Categories,
	}
	y := tensor.Of(yClass)
	if target.Kind == Number {
		spec.Targets[0].Shape, spec.Targets[0].DType = shape.Of(1), dtype.F32 // as a dense layer of one unit gives it
		y = tensor.Of(yValue, n, 1)
	}
	t.Dataset, err = data.FromTensors(spec, []*tensor.Tensor{tensor.Of(x, n, width)}, []*tensor.Tensor{y})
	return err
}

// value is a cell as a number or as the number of its category; has is false when the cell has no value. A category that is not known is
// an error, or counts as no value.
func (c *Column) value(cell string, lenient bool) (v float64, has bool, err error) {
	if missing(cell) {
		return 0, false, nil
	}
	if c.Kind == Number {
		v, ok := number(cell)
		if !ok {
			return 0, false, fmt.Errorf("%q is no finite number", cell)
		}
		return v, true, nil
	}
	code, ok := c.code[cell]
	if !ok && lenient {
		return 0, false, nil
	}
	if !ok {
		return 0, false, fmt.Errorf("%q is none of the %d categories", cell, len(c.Categories))
	}
	return float64(code), true, nil
}
