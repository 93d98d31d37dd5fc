package catalog

import (
	"cmp"
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
	"github.com/jouleml/joule/data/labelled"
	"github.com/jouleml/joule/data/pairs"
	"github.com/jouleml/joule/data/table"
	corpus "github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/internal/nearest"
	"github.com/jouleml/joule/text"
)

// Open opens a data set: one of List by its name, "folder:PATH", "csv:PATH", "text:PATH" or "pairs:PATH"; the path alone is enough for an existing folder or .csv,
// .tsv or .txt file. It downloads nothing. Settings follow a path as in a web address, "csv:iris.csv?target=species&missing=drop":
//
//	folder  size=HEIGHTxWIDTH   (otherwise the first picture's)   channels=1 or 3
//	csv     target=COLUMN   classify=yes   ignore=COLUMN,COLUMN   missing=refuse, drop or impute   codes=yes   header=no
//	        comma=CHARACTER, tab or semicolon   test=FILE
//	both    split=FRACTION for the test part (0.2)   seed=NUMBER of that split (0)
//	text    length=TOKENS of an example (128)   stride=TOKENS to the next (length)   split=FRACTION at the end for the test part (0.1)
//	        tokenizer=byte, char, word:SIZE, wordpiece:SIZE, bpe:SIZE, unigram:SIZE or a file (tokenizer.json, .model, .tiktoken); with it PATH may also be a folder
//	        of .txt files, and the text need not fit into memory; without it tokens are characters
//	pairs   (a file of two texts a line, with a tab between; debian-en-de, debian-synopses too)   vocabulary=SIZE (4000)
//	        tokenizer=bpe or unigram (bpe)   source=TOKENS   target=TOKENS of a text at most (64)   split=FRACTION for the test part (0.1)
//	labelled  (a file of a class and a text a line, with a tab between; debian-sections too)   tokenizer=FILE or wordpiece:SIZE, bpe:SIZE (wordpiece:8000)
//	        length=TOKENS of a text at most, what is longer is cut off (64)   split=FRACTION for the test part (0.1)
//	series  time=COLUMN that labels rows   columns=COLUMN,COLUMN to read (all)   target=COLUMN,COLUMN to forecast (all)   length=ROWS of a window (30)
//	        horizon=ROWS to forecast (1)   change=none, diff or log   split=FRACTION at the end for the test part (0.2)
//
// A table of time series, "series:PATH", is a CSV file whose rows are in the order of time (package forecast).
//
// A folder that has the folders train and test (or val, or validation) is taken in these parts; any other folder, and a table without
// test=FILE, is split at random, with the same share of each class in both parts.
func Open(name string) (*data.Set, error) { return OpenLike(name, data.Spec{}) }

// OpenLike is Open for data that a model of another data set is to be used on: text becomes the tokens that like has, not those of a vocabulary of its own.
func OpenLike(name string, like data.Spec) (*data.Set, error) {
	if kind, rest, ok := strings.Cut(name, ":"); ok {
		path, query, _ := strings.Cut(rest, "?")
		switch kind {
		case "folder", "csv":
			return openPath(kind, rest)
		case "text":
			return openText(name, query, like, func() ([]corpus.Source, error) { return corpus.Files(path) }, func(c corpus.Config) (*data.Set, error) { return corpus.Open(path, c) })
		case "pairs":
			return openPairs(name, query, like, &pairsEntry{func(string) ([]pairs.Pair, error) { return pairs.ReadTable(path) }, pairs.Config{}, 0.1}, "")
		case "labelled":
			return openLabelled(name, query, like, &labelledEntry{func(string) ([]labelled.Example, error) { return labelled.ReadTable(path) }, labelled.Config{}, 0.1}, "")
		}
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
	base, query, _ := strings.Cut(name, "?")
	if e, _ := lookup(entries, base); e != nil {
		switch {
		case e.text != nil:
			s, err := e.text()
			if err != nil {
				return nil, err
			}
			return openText(name, query, like, func() ([]corpus.Source, error) { return []corpus.Source{corpus.Memory(base, s)}, nil }, func(c corpus.Config) (*data.Set, error) { return corpus.Chars(name, s, c) })
		case e.pairs != nil || e.labelled != nil:
			dir, err := e.here()
			if err != nil {
				return nil, err
			}
			if e.pairs != nil {
				return openPairs(name, query, like, e.pairs, dir)
			}
			return openLabelled(name, query, like, e.labelled, dir)
		}
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
	dir, err := e.here()
	if err != nil {
		return nil, err
	}
	return e.open(dir)
}

// here is the folder of the data set's files.
func (e *entry) here() (string, error) {
	dir := e.where()
	if dir == "" {
		return "", fmt.Errorf("catalog: %s is not on this machine (looked in %s): `joule data get %s` downloads it, %.0f MB, from %s",
			e.info.Name, strings.Join(e.folders(), ", "), e.info.Name, float64(e.info.Bytes())/1e6, e.info.Files[0].URL)
	}
	return dir, nil
}

// openPairs opens pairs of texts.
func openPairs(name, query string, like data.Spec, e *pairsEntry, dir string) (*data.Set, error) {
	s, err := settingsOf(name, query)
	if err != nil {
		return nil, err
	}
	c, share := e.config, s.fraction("split", e.share)
	for key, to := range map[string]*int{"vocabulary": &c.Vocabulary, "source": &c.Source, "target": &c.Target} {
		if n := s.number(key); n > 0 {
			*to = n
		}
	}
	if k := s.take("tokenizer"); k != "" {
		c.Kind = k
	}
	if err := s.finish("vocabulary", "tokenizer", "source", "target", "split"); err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	if like.Tokenizer != nil {
		if c.Tokenizer, err = text.Parse(like.Tokenizer); err != nil {
			return nil, fmt.Errorf("catalog: the model's tokenizer: %w", err)
		}
	}
	if len(like.Inputs) == 3 && len(like.Inputs[0].Shape) == 1 && len(like.Inputs[2].Shape) == 1 { // a model has its own lengths
		c.Source, c.Target = like.Inputs[0].Shape[0], like.Inputs[2].Shape[0]
	}
	all, err := e.read(dir)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	train, test, _ := pairs.Split(all, share)
	if len(test) == 0 || len(train) == 0 {
		return nil, fmt.Errorf("catalog: %s: %d pairs are too few for a test part of %g", name, len(all), share)
	}
	set, err := pairs.New(name, train, test, c)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return set, nil
}

// openLabelled opens texts with a class each.
func openLabelled(name, query string, like data.Spec, e *labelledEntry, dir string) (*data.Set, error) {
	s, err := settingsOf(name, query)
	if err != nil {
		return nil, err
	}
	c, share, tokenizer := e.config, s.fraction("split", e.share), s.take("tokenizer")
	if n := s.number("length"); n > 0 {
		c.Length = n
	}
	if err := s.finish("length", "split", "tokenizer"); err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	all, err := e.read(dir)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	train, test := labelled.Split(all, share)
	if len(test) == 0 || len(train) == 0 {
		return nil, fmt.Errorf("catalog: %s: %d texts are too few for a test part of %g", name, len(all), share)
	}
	switch {
	case like.Tokenizer != nil && tokenizer == "":
		c.Tokenizer, err = text.Parse(like.Tokenizer)
	case tokenizer != "" && !strings.HasPrefix(tokenizer, "wordpiece:") && !strings.HasPrefix(tokenizer, "bpe:"):
		c.Tokenizer, err = text.Load(tokenizer)
	default:
		c.Tokenizer, err = labelled.Train(train, cmp.Or(tokenizer, "wordpiece:8000"))
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %s: the tokenizer: %w", name, err)
	}
	if len(like.ClassNames) > 0 && like.Classes > 0 && len(like.Targets) == 1 && len(like.Targets[0].Shape) == 0 { // a model's classes, in its order
		c.Classes = like.ClassNames
		if n := like.Inputs[0].Shape; len(n) == 1 {
			c.Length = n[0]
		}
	}
	set, err := labelled.New(name, train, test, c)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return set, nil
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

// Series is the time series that a name means, "series:PATH" or one of List, before they are cut into parts; nil if it means something else.
func Series(name string) (*forecast.Series, error) {
	base, query, _ := strings.Cut(name, "?")
	path, isPath := strings.CutPrefix(base, "series:")
	e, _ := lookup(entries, base)
	if !isPath && (e == nil || e.table == nil) {
		return nil, nil
	}
	s, err := settingsOf(name, query)
	if err != nil {
		return nil, err
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

// openText reads the settings of a text and opens it: by characters in memory, or with a tokenizer.
func openText(name, query string, like data.Spec, sources func() ([]corpus.Source, error), chars func(c corpus.Config) (*data.Set, error)) (*data.Set, error) {
	s, err := settingsOf(name, query)
	if err != nil {
		return nil, err
	}
	c := corpus.Config{Length: s.number("length"), Stride: s.number("stride"), Test: s.fraction("split", 0.1)}
	if c.Length == 0 && len(like.Inputs) == 1 && len(like.Inputs[0].Shape) == 1 {
		c.Length = like.Inputs[0].Shape[0]
	}
	tokenizer := s.take("tokenizer")
	if err := s.finish("length", "stride", "split", "tokenizer"); err != nil {
		return nil, fmt.Errorf("catalog: %s: %w", name, err)
	}
	var set *data.Set
	switch {
	case tokenizer != "" || like.Tokenizer != nil:
		set, err = openTokens(name, tokenizer, like, c, sources)
	case len(like.ClassNames) > 0: // characters of a model
		if c.Vocabulary, err = corpus.NewVocabulary(like.ClassNames); err == nil {
			set, err = chars(c)
		}
	default:
		set, err = chars(c)
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	set.Name = name
	return set, nil
}

// openTokens opens a text with the tokenizer of a model, or the one that a setting describes.
func openTokens(name, setting string, like data.Spec, c corpus.Config, sources func() ([]corpus.Source, error)) (*data.Set, error) {
	from, err := sources()
	if err != nil {
		return nil, err
	}
	var k *text.Tokenizer
	if like.Tokenizer != nil {
		k, err = text.Parse(like.Tokenizer)
	} else {
		k, err = corpus.TokenizerFor(setting, from, c.Test)
	}
	if err != nil {
		return nil, err
	}
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	return corpus.Tokens(name, from, k, c, filepath.Join(dir, "tokens"))
}

// settingsOf reads the settings behind a name.
func settingsOf(name, query string) (*settings, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("catalog: %s: settings %q: %w", name, query, err)
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
	s, err := settingsOf(kind+":"+path, query)
	if err != nil {
		return nil, err
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
