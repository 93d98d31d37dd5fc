package catalog

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/folder"
	"github.com/jouleml/joule/data/forecast"
	"github.com/jouleml/joule/data/table"
	"github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/internal/nearest"
)

// Open opens a data set: one of List by its name, "folder:PATH", "csv:PATH" or "text:PATH"; the path alone is enough for an existing folder or .csv,
// .tsv or .txt file. It downloads nothing. Settings follow a path as in a web address, "csv:iris.csv?target=species&missing=drop":
//
//	folder  size=HEIGHTxWIDTH   (otherwise the first picture's)   channels=1 or 3
//	csv     target=COLUMN   classify=yes   ignore=COLUMN,COLUMN   missing=refuse, drop or impute   codes=yes   header=no
//	        comma=CHARACTER, tab or semicolon   test=FILE
//	both    split=FRACTION for the test part (0.2)   seed=NUMBER of that split (0)
//	text    length=TOKENS of an example (128)   stride=TOKENS to the next (length)   split=FRACTION at the end for the test part (0.1)
//	series  time=COLUMN that labels rows   columns=COLUMN,COLUMN to read (all)   target=COLUMN,COLUMN to forecast (all)   length=ROWS of a window (30)
//	        horizon=ROWS to forecast (1)   change=none, diff or log   split=FRACTION at the end for the test part (0.2)
//
// A table of time series, "series:PATH", is a CSV file whose rows are in the order of time (package forecast).
//
// A folder that has the folders train and test (or val, or validation) is taken in these parts; any other folder, and a table without
// test=FILE, is split at random, with the same share of each class in both parts.
func Open(name string) (*data.Set, error) {
	kind, rest, hasKind := strings.Cut(name, ":")
	if hasKind && (kind == "folder" || kind == "csv") {
		return openPath(kind, rest)
	}
	if hasKind && kind == "text" {
		path, query, _ := strings.Cut(rest, "?")
		return openText(name, query, func(c text.Config) (*data.Set, error) { return text.Open(path, c) })
	}
	if s, err := Series(name); s != nil || err != nil {
		if err != nil {
			return nil, err
		}
		set, err := s.Set(name)
		if err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		return set, nil
	}
	if base, query, _ := strings.Cut(name, "?"); entryText(base) != nil {
		return openText(name, query, func(c text.Config) (*data.Set, error) {
			s, err := entryText(base)()
			if err != nil {
				return nil, err
			}
			return text.Chars(name, s, c)
		})
	}
	e, err := find(name)
	if err == nil {
		return e.openHere()
	}
	file, _, _ := strings.Cut(name, "?")
	info, statErr := os.Stat(file)
	ext := strings.ToLower(filepath.Ext(file))
	switch {
	case statErr == nil && info.IsDir():
		return openPath("folder", name)
	case statErr == nil && (ext == ".csv" || ext == ".tsv"):
		return openPath("csv", name)
	case statErr == nil && ext == ".txt":
		return Open("text:" + name)
	case statErr != nil && (strings.ContainsRune(file, filepath.Separator) || ext == ".csv" || ext == ".tsv" || ext == ".txt"):
		return nil, fmt.Errorf("catalog: %w", statErr)
	}
	return nil, err
}

func (e *entry) openHere() (*data.Set, error) {
	dir := e.where()
	if dir == "" {
		return nil, fmt.Errorf("catalog: %s is not on this machine (looked in %s): `joule data get %s` downloads it, %.0f MB, from %s",
			e.info.Name, strings.Join(e.folders(), ", "), e.info.Name, float64(e.info.Bytes())/1e6, e.info.Files[0].URL)
	}
	return e.open(dir)
}

// settings are what follows the path; each may be taken once, and what is left at the end is unknown.
type settings struct {
	values map[string]string
	err    error
}

func (s *settings) take(key string) string {
	v := s.values[key]
	delete(s.values, key)
	return v
}

// choose takes a key whose value must be one of the options; the first is the default.
func (s *settings) choose(key string, options ...string) int {
	v := s.take(key)
	i := slices.Index(options, v)
	if v == "" {
		return 0
	}
	if i < 0 {
		s.fail("%s=%s: must be one of %s%s", key, v, strings.Join(options, ", "), nearest.Hint(v, options))
	}
	return max(i, 0)
}

func (s *settings) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

// finish returns the first error, an unknown key among them.
func (s *settings) finish(known ...string) error {
	for _, k := range slices.Sorted(maps.Keys(s.values)) {
		s.fail("unknown setting %q%s (known: %s)", k, nearest.Hint(k, known), strings.Join(known, ", "))
	}
	return s.err
}

// entryText is the text of a named data set that is one, nil of others.
func entryText(name string) func() (string, error) {
	for i := range entries {
		if entries[i].info.Name == name {
			return entries[i].text
		}
	}
	return nil
}

// Series is the time series that a name means, "series:PATH" or one of List, before they are cut into parts; nil if it means something else.
func Series(name string) (*forecast.Series, error) {
	base, query, _ := strings.Cut(name, "?")
	path, isPath := strings.CutPrefix(base, "series:")
	var e *entry
	for i := range entries {
		if entries[i].info.Name == base && entries[i].table != nil {
			e = &entries[i]
		}
	}
	if !isPath && e == nil {
		return nil, nil
	}
	s, err := settingsOf(query)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s: settings %q: %w", name, query, err)
	}
	list := func(key string) []string {
		if v := s.take(key); v != "" {
			return strings.Split(v, ",")
		}
		return nil
	}
	known := []string{"length", "horizon", "target", "change", "split"}
	c := forecast.Config{Length: s.number("length"), Horizon: s.number("horizon"), Targets: list("target"), Test: s.fraction("split", 0.2)}
	changes := []string{"", "none", string(forecast.Differences), string(forecast.Logarithms)}
	k := s.choose("change", changes...)
	if c.Change = forecast.Change(changes[k]); k == 1 {
		c.Change = forecast.None
	}
	read := func() (*forecast.Table, error) { return e.table() }
	if e != nil {
		if k == 0 {
			c.Change = e.change
		}
		if c.Targets == nil {
			c.Targets = e.target
		}
	} else {
		known = append(known, "time", "columns")
		time, columns := s.take("time"), list("columns")
		read = func() (*forecast.Table, error) { return forecast.Open(path, time, columns...) }
	}
	if err := s.finish(known...); err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	t, err := read()
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	out, err := forecast.Prepare(t, c)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	return out, nil
}

// openText reads the settings of a text and opens it.
func openText(name, query string, open func(c text.Config) (*data.Set, error)) (*data.Set, error) {
	s, err := settingsOf(query)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s: settings %q: %w", name, query, err)
	}
	c := text.Config{Length: s.number("length"), Stride: s.number("stride"), Test: s.fraction("split", 0.1)}
	if err := s.finish("length", "stride", "split"); err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	set, err := open(c)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	set.Name = name
	return set, nil
}

func settingsOf(query string) (*settings, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	s := &settings{values: map[string]string{}}
	for k, v := range values {
		s.values[k] = v[len(v)-1]
	}
	return s, nil
}

// number takes a key whose value must be a whole number from 1 on; without the key it is 0.
func (s *settings) number(key string) int {
	v := s.take(key)
	if v == "" {
		return 0
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		s.fail("%s=%s: must be a whole number from 1 on", key, v)
	}
	return n
}

// fraction takes a key whose value must be between 0 and 1.
func (s *settings) fraction(key string, otherwise float64) float64 {
	v := s.take(key)
	if v == "" {
		return otherwise
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f > 0 && f < 1) {
		s.fail("%s=%s: must be a number between 0 and 1", key, v)
	}
	return f
}

// openPath opens what belongs to the user.
func openPath(kind, rest string) (*data.Set, error) {
	path, query, _ := strings.Cut(rest, "?")
	s, err := settingsOf(query)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s:%s: settings %q: %w", kind, path, query, err)
	}
	fraction, seed := s.fraction("split", 0.2), uint64(0)
	if v := s.take("seed"); v != "" {
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			s.fail("seed=%s: must be a whole number", v)
		}
	}
	open := openFolder
	if kind == "csv" {
		open = openTable
	}
	train, test, err := open(path, s)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s:%s: %w", kind, path, err)
	}
	if test == nil {
		split := data.Split
		if train.Spec().Classes > 0 {
			split = data.SplitStratified
		}
		if test, train, err = split(train, fraction, seed); err != nil {
			return nil, fmt.Errorf("catalog: %s:%s: making a test part: %w", kind, path, err)
		}
	}
	return &data.Set{Name: kind + ":" + rest, Train: train, Test: test}, nil
}

// openFolder returns a nil test part when the folder has none.
func openFolder(path string, s *settings) (train, test data.Dataset, err error) {
	var size folder.Size
	if v := s.take("size"); v != "" {
		h, w, _ := strings.Cut(v, "x")
		var errH, errW error
		size.Height, errH = strconv.Atoi(h)
		size.Width, errW = strconv.Atoi(w)
		if errH != nil || errW != nil || size.Height <= 0 || size.Width <= 0 {
			s.fail("size=%s: must be HEIGHTxWIDTH, such as 28x28", v)
		}
	}
	size.Channels = []int{3, 1}[s.choose("channels", "3", "1")]
	if err := s.finish("size", "channels", "split", "seed"); err != nil {
		return nil, nil, err
	}
	if !isDir(filepath.Join(path, "train")) {
		train, err = folder.Open(path, size)
		return train, nil, err
	}
	for _, name := range []string{"test", "val", "validation"} {
		if !isDir(filepath.Join(path, name)) {
			continue
		}
		if train, err = folder.Open(filepath.Join(path, "train"), size); err != nil {
			return nil, nil, err
		}
		image := train.Spec().Inputs[0].Shape
		size.Height, size.Width = image[0], image[1]
		if test, err = folder.Open(filepath.Join(path, name), size); err != nil {
			return nil, nil, err
		}
		if a, b := train.Spec().ClassNames, test.Spec().ClassNames; !slices.Equal(a, b) {
			return nil, nil, fmt.Errorf("train has the classes %s, but %s has %s", strings.Join(a, ", "), name, strings.Join(b, ", "))
		}
		return train, test, nil
	}
	train, err = folder.Open(path, size) // "train" is a class here
	return train, nil, err
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// openTable returns a nil test part when no test file is named.
func openTable(path string, s *settings) (train, test data.Dataset, err error) {
	cfg := table.Config{
		Target:   s.take("target"),
		Classify: s.choose("classify", "no", "yes") == 1,
		Missing:  []table.Missing{table.Refuse, table.Drop, table.Impute}[s.choose("missing", "refuse", "drop", "impute")],
		Codes:    s.choose("codes", "no", "yes") == 1,
		NoHeader: s.choose("header", "yes", "no") == 1,
		Columns:  map[string]table.Kind{},
	}
	if v := s.take("ignore"); v != "" {
		for _, c := range strings.Split(v, ",") {
			cfg.Columns[c] = table.Ignore
		}
	}
	switch v := s.take("comma"); {
	case v == "tab", v == "" && strings.EqualFold(filepath.Ext(path), ".tsv"):
		cfg.Comma = '\t'
	case v == "semicolon":
		cfg.Comma = ';'
	case len(v) == 1 && v[0] > ' ' && v[0] != '"' && v[0] < 0x7f:
		cfg.Comma = rune(v[0])
	case v != "":
		s.fail("comma=%s: must be one character, tab or semicolon", v)
	}
	testFile := s.take("test")
	if err := s.finish("target", "classify", "ignore", "missing", "codes", "header", "comma", "test", "split", "seed"); err != nil {
		return nil, nil, err
	}
	t, err := table.Open(path, cfg)
	if err != nil || testFile == "" {
		return t, nil, err
	}
	like, err := t.OpenLike(testFile)
	return t, like, err
}
