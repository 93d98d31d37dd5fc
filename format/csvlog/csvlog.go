// Package csvlog keeps a training's history as a CSV file: a first column of integers that grow ("epoch" or "step"), then one column of
// numbers for each metric. Any spreadsheet opens it. Not-a-number and infinities are spelled NaN, +Inf and -Inf; a value that was not
// given is NaN.
//
// It is safe to append to. A row is written with one system call; a row that a kill has cut is dropped at the next Open; when a training
// goes back to an earlier epoch, or brings a metric that the file has no column for, the file is replaced atomically.
// One process may write a file at a time.
package csvlog

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

	"github.com/jouleml/joule/internal/atomicfile"
)

// MaxSize is the longest file in bytes that is read.
const MaxSize = 256 << 20

// ErrFormat is wrapped by every error about a file's content.
var ErrFormat = errors.New("not a history of numbers")

// Value is one metric of a row.
type Value struct {
	Name  string
	Value float64
}

// Row is one line of the file.
type Row struct {
	Key    int64 // the first column
	Values []float64
}

// Table is a whole file. A value that a row does not have is NaN.
type Table struct {
	Key     string   // name of the first column
	Columns []string // names of the others
	Rows    []Row    // Key grows
}

// Column is the values under the name, one for each row; nil when there is no such column.
func (t *Table) Column(name string) []float64 {
	i := slices.Index(t.Columns, name)
	if i < 0 {
		return nil
	}
	out := make([]float64, len(t.Rows))
	for r := range out {
		out[r] = t.Rows[r].Values[i]
	}
	return out
}

// Read reads a file that a Log has written, or one like it. A last line without an end is one that is being written, or was cut; it does not count.
func Read(path string) (*Table, error) {
	t, _, err := read(path)
	return t, err
}

// read also gives the number of bytes of the whole lines.
func read(path string) (*Table, int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("csvlog: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("csvlog: %s is not a regular file", path)
	}
	if st.Size() > MaxSize {
		return nil, 0, fmt.Errorf("csvlog: %s: %w: %d bytes, the limit is %d", path, ErrFormat, st.Size(), int64(MaxSize))
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("csvlog: %w", err)
	}
	text := string(b)
	whole := strings.LastIndexByte(text, '\n') + 1
	t, err := Parse(text[:whole])
	if err != nil {
		return nil, 0, fmt.Errorf("csvlog: %s: %w", path, err)
	}
	return t, int64(whole), nil
}

// Parse reads a file's text. No text is a table without columns.
func Parse(text string) (*Table, error) {
	r := csv.NewReader(strings.NewReader(text))
	r.ReuseRecord = true
	t := &Table{}
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		line, _ := r.FieldPos(0)
		bad := func(format string, args ...any) error {
			return fmt.Errorf("%w: line %d: %s", ErrFormat, line, fmt.Sprintf(format, args...))
		}
		if t.Key == "" {
			for i, name := range rec {
				if name == "" || slices.Contains(rec[:i], name) {
					return nil, bad("column %d has the name %q, which is empty or taken", i+1, name)
				}
			}
			t.Key, t.Columns = rec[0], slices.Clone(rec[1:])
			continue
		}
		row := Row{Values: make([]float64, len(t.Columns))}
		if row.Key, err = strconv.ParseInt(rec[0], 10, 64); err != nil {
			return nil, bad("%s is %q, not a whole number", t.Key, rec[0])
		}
		if n := len(t.Rows); n > 0 && row.Key <= t.Rows[n-1].Key {
			return nil, bad("%s %d after %d", t.Key, row.Key, t.Rows[n-1].Key)
		}
		for i, f := range rec[1:] {
			if f == "" {
				row.Values[i] = math.NaN()
				continue
			}
			// An error with a value is a number beyond float64: ±Inf, as ParseFloat says.
			if row.Values[i], err = strconv.ParseFloat(f, 64); err != nil && !errors.Is(err, strconv.ErrRange) {
				return nil, bad("%s is %q, not a number", t.Columns[i], f)
			}
		}
		t.Rows = append(t.Rows, row)
	}
}

// Log appends to one file.
type Log struct {
	path string
	t    Table
	f    *os.File // nil: not open
	torn bool     // a failed write may have left half a line
}

// Open opens the file at path for appending, or gets ready to make it with the first row; key names the first column.
// It keeps the whole rows that are there and drops a cut one.
func Open(path, key string) (*Log, error) {
	if key == "" {
		return nil, errors.New("csvlog: the first column needs a name")
	}
	l := &Log{path: path, t: Table{Key: key}}
	t, whole, err := read(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return l, nil
	case err != nil:
		return nil, err
	case t.Key == "": // nothing, or a cut header
		return l, l.rewrite()
	case t.Key != key:
		return nil, fmt.Errorf("csvlog: %s: %w: its first column is %q, not %q; choose another file", path, ErrFormat, t.Key, key)
	}
	l.t = *t
	if st, err := os.Stat(path); err != nil || st.Size() != whole {
		return l, l.rewrite()
	}
	return l, nil
}

// Append writes a row. Rows with the same key or a greater one are dropped first: the training has gone back to before them.
func (l *Log) Append(key int64, values ...Value) error {
	again := false
	for i, v := range values {
		if v.Name == "" || v.Name == l.t.Key || slices.ContainsFunc(values[:i], func(w Value) bool { return w.Name == v.Name }) {
			return fmt.Errorf("csvlog: %s: column name %q is empty or given twice", l.path, v.Name)
		}
		if !slices.Contains(l.t.Columns, v.Name) {
			again = true
			l.t.Columns = append(l.t.Columns, v.Name)
			for r := range l.t.Rows {
				l.t.Rows[r].Values = append(l.t.Rows[r].Values, math.NaN())
			}
		}
	}
	row := Row{Key: key, Values: make([]float64, len(l.t.Columns))}
	for i, name := range l.t.Columns {
		row.Values[i] = math.NaN()
		if j := slices.IndexFunc(values, func(v Value) bool { return v.Name == name }); j >= 0 {
			row.Values[i] = values[j].Value
		}
	}
	for n := len(l.t.Rows); n > 0 && l.t.Rows[n-1].Key >= key; n-- {
		again = true
		l.t.Rows = l.t.Rows[:n-1]
	}
	l.t.Rows = append(l.t.Rows, row)
	if again || l.torn {
		return l.rewrite()
	}
	if l.f == nil {
		f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND, 0)
		if errors.Is(err, os.ErrNotExist) {
			return l.rewrite()
		}
		if err != nil {
			return fmt.Errorf("csvlog: %w%s", err, atomicfile.Remedy(err))
		}
		l.f = f
	}
	if _, err := l.f.Write(l.line(nil, row)); err != nil {
		l.torn = true
		return fmt.Errorf("csvlog: %w%s", err, atomicfile.Remedy(err))
	}
	return nil
}

// rewrite replaces the file by the table.
func (l *Log) rewrite() error {
	l.Close() // Windows replaces no open file
	if len(l.t.Rows) == 0 {
		if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("csvlog: %w%s", err, atomicfile.Remedy(err))
		}
		return nil
	}
	err := atomicfile.Write(l.path, func(w io.Writer) error {
		c := csv.NewWriter(w)
		c.Write(append([]string{l.t.Key}, l.t.Columns...))
		c.Flush()
		if c.Error() != nil {
			return c.Error()
		}
		var b []byte
		for _, r := range l.t.Rows {
			b = l.line(b[:0], r)
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("csvlog: %w", err)
	}
	l.torn = false
	return nil
}

// line appends the row's text. Numbers need no quotes.
func (l *Log) line(b []byte, r Row) []byte {
	b = strconv.AppendInt(b, r.Key, 10)
	for _, v := range r.Values {
		b = append(b, ',')
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	return append(b, '\n')
}

// Sync flushes the rows to the disk, so that they survive a loss of power.
func (l *Log) Sync() error {
	if l.f == nil {
		return nil // a rewritten file has been flushed
	}
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("csvlog: %w%s", err, atomicfile.Remedy(err))
	}
	return nil
}

// Close closes the file. Append opens it again.
func (l *Log) Close() error {
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
