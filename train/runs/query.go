package runs

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/internal/nearest"
)

// Query says which runs List gives, and in which order. The zero value is all of them, the newest first.
type Query struct {
	// Sort is one of Columns or the name of a result, such as "test_accuracy" or "joules". Runs without it come last.
	Sort string
	// Ascending puts the lowest first.
	Ascending bool
	// State leaves out runs in other states, when it is not empty.
	State State
	// Limit is the most runs to give; 0 gives all.
	Limit int
}

// Columns can be sorted by beside the results.
var Columns = []string{"start", "name", "state", "duration", "host", "isa", "threads", "seed"}

// Listing is the answer to a Query.
type Listing struct {
	Runs []Info
	// Problems are folders that could not be read and an index that had to be made anew. Show them to the user.
	Problems []error
}

// List gives the runs that are asked for. It first brings the index up to date with the folders. A folder that does not exist holds no runs.
func (s *Store) List(q Query) (*Listing, error) {
	ids, err := s.ids()
	if err != nil {
		return nil, err
	}
	if len(ids) == 0 { // makes no index where there is nothing
		return &Listing{}, nil
	}
	x, err := s.openIndex()
	if err != nil {
		return nil, err
	}
	defer x.Close()
	out := &Listing{Problems: x.problems}
	if out.Runs, err = x.list(q); err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	for i := range out.Runs {
		out.Runs[i].Dir = filepath.Join(s.root, out.Runs[i].ID)
	}
	return out, nil
}

// list runs the query on the index.
func (x *index) list(q Query) ([]Info, error) {
	by := "runs.start"
	if q.Sort != "" {
		if slices.Contains(Columns, q.Sort) {
			by = "runs." + q.Sort
		} else {
			by = "r.value"
			if err := x.checkResult(q.Sort); err != nil {
				return nil, err
			}
		}
	}
	direction := "DESC"
	if q.Ascending {
		direction = "ASC"
	}
	limit := -1
	if q.Limit > 0 {
		limit = q.Limit
	}
	rows, err := x.Query(`SELECT info FROM runs LEFT JOIN results r ON r.run = runs.id AND r.name = ?1
		WHERE ?2 = '' OR state = ?2
		ORDER BY `+by+` IS NULL, `+by+` `+direction+`, runs.id `+direction+` LIMIT ?3`, q.Sort, string(q.State), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []Info
	for rows.Next() {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		var i Info
		if err := json.Unmarshal(text, &i); err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, rows.Err()
}

// checkResult fails when no run has a result of that name, and says which there are.
func (x *index) checkResult(name string) error {
	rows, err := x.Query("SELECT DISTINCT name FROM results ORDER BY name")
	if err != nil {
		return err
	}
	defer rows.Close()
	known := slices.Clone(Columns)
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			return err
		}
		known = append(known, n)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !slices.Contains(known, name) {
		return fmt.Errorf("cannot sort by %q%s; there are %s", name, nearest.Hint(name, known), strings.Join(known, ", "))
	}
	return nil
}

// Difference is a setting in which two runs differ.
type Difference struct {
	Name string `json:"name"`
	A    string `json:"a"`
	B    string `json:"b"`
}

// Pair is a result of two runs; NaN stands for a run that has none.
type Pair struct {
	Name string
	A, B float64
}

// Comparison sets two runs side by side.
type Comparison struct {
	A, B *Info
	// Settings are those that differ.
	Settings []Difference
	// Results are all that either has, by name.
	Results []Pair
	// HistoryA and HistoryB are the rows of each, one an epoch.
	HistoryA, HistoryB *csvlog.Table
}

// Compare sets two runs side by side; a and b are as for Get.
func (s *Store) Compare(a, b string) (*Comparison, error) {
	var c Comparison
	for _, x := range []struct {
		ref  string
		info **Info
		rows **csvlog.Table
	}{{a, &c.A, &c.HistoryA}, {b, &c.B, &c.HistoryB}} {
		var err error
		if *x.info, err = s.Get(x.ref); err != nil {
			return nil, err
		}
		if *x.rows, err = (*x.info).History(); err != nil {
			return nil, err
		}
	}
	c.Settings = differences(c.A, c.B)
	names := map[string]bool{}
	for n := range c.A.Results {
		names[n] = true
	}
	for n := range c.B.Results {
		names[n] = true
	}
	for n := range names {
		c.Results = append(c.Results, Pair{n, value(c.A.Results, n), value(c.B.Results, n)})
	}
	sort.Slice(c.Results, func(i, j int) bool { return c.Results[i].Name < c.Results[j].Name })
	return &c, nil
}

func value(v Values, name string) float64 {
	if x, ok := v[name]; ok {
		return x
	}
	return math.NaN()
}

// differences lists the settings, in the order of Info's fields.
func differences(a, b *Info) []Difference {
	var out []Difference
	for _, f := range []struct {
		name string
		get  func(*Info) string
	}{
		{"name", func(i *Info) string { return i.Name }},
		{"spec", func(i *Info) string { return i.Spec }},
		{"seed", func(i *Info) string { return strconv.FormatUint(i.Seed, 10) }},
		{"host", func(i *Info) string { return i.Host }},
		{"cpu", func(i *Info) string { return i.CPU }},
		{"isa", func(i *Info) string { return i.ISA }},
		{"threads", func(i *Info) string { return strconv.Itoa(i.Threads) }},
		{"version", func(i *Info) string { return i.Version }},
		{"state", func(i *Info) string { return string(i.State) }},
	} {
		if x, y := f.get(a), f.get(b); x != y {
			out = append(out, Difference{f.name, x, y})
		}
	}
	names := maps.Clone(a.Settings)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, b.Settings)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if x, y := a.Settings[n], b.Settings[n]; x != y {
			out = append(out, Difference{n, x, y})
		}
	}
	return out
}
