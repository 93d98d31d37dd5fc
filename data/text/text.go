// Package text makes data sets of text for language models: an example is a stretch of tokens, its targets the same stretch one token later.
package text

import (
	_ "embed"

	"bytes"
	"cmp"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"slices"
	"unicode/utf8"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

//go:generate go run -C _gen .

//go:embed opticks.txt.gz
var opticks []byte

// Opticks is Isaac Newton's Opticks, fourth edition, 1730 (public domain), without the lines of those who typed it.
func Opticks() (string, error) {
	z, err := gzip.NewReader(bytes.NewReader(opticks))
	if err != nil {
		return "", fmt.Errorf("text: opticks: the binary is damaged: %w", err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return "", fmt.Errorf("text: opticks: the binary is damaged: %w", err)
	}
	return string(b), nil
}

// Config says how a text becomes examples.
type Config struct {
	Length int     // tokens of an example; 0: 128
	Stride int     // tokens from the start of a training example to that of the next; 0: Length
	Test   float64 // share of the text, at its end, that is the test part; 0: 0.1

	Vocabulary *Vocabulary // of characters; nil: those that occur
}

// complete puts in the defaults.
func (c Config) complete() (Config, error) {
	c.Length = cmp.Or(c.Length, 128)
	c.Stride, c.Test = cmp.Or(c.Stride, c.Length), cmp.Or(c.Test, 0.1)
	if c.Length < 1 || c.Stride < 1 || !(c.Test > 0 && c.Test < 1) {
		return c, fmt.Errorf("text: length %d and stride %d must be at least 1, and the test part %g between 0 and 1", c.Length, c.Stride, c.Test)
	}
	return c, nil
}

// Vocabulary is the characters that a model knows, by number.
type Vocabulary struct {
	names []string
	ids   map[rune]int32
}

// NewVocabulary is the vocabulary whose token i is the character names[i].
func NewVocabulary(names []string) (*Vocabulary, error) {
	v := &Vocabulary{names: names, ids: map[rune]int32{}}
	for i, s := range names {
		r, n := utf8.DecodeRuneInString(s)
		if n == 0 || n != len(s) || r == utf8.RuneError {
			return nil, fmt.Errorf("text: token %d, %q, is not one character: the model is not one of characters", i, s)
		}
		v.ids[r] = int32(i)
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("text: the model has no vocabulary: it was not trained on text")
	}
	return v, nil
}

// Characters is the vocabulary of the characters that occur in s, in the order of their code points.
func Characters(s string) *Vocabulary {
	seen := map[rune]bool{}
	for _, r := range s {
		seen[r] = true
	}
	var rs []rune
	for r := range seen {
		rs = append(rs, r)
	}
	slices.Sort(rs)
	v := &Vocabulary{ids: map[rune]int32{}}
	for i, r := range rs {
		v.names, v.ids[r] = append(v.names, string(r)), int32(i)
	}
	return v
}

// Names are the characters in the order of their numbers.
func (v *Vocabulary) Names() []string { return v.names }

// Encode gives the numbers of the characters of s. A character that the vocabulary lacks is an error.
func (v *Vocabulary) Encode(s string) ([]int32, error) {
	out := make([]int32, 0, len(s))
	line, column := 1, 0
	for _, r := range s {
		column++
		id, ok := v.ids[r]
		if !ok {
			return nil, fmt.Errorf("text: line %d, character %d: %q (U+%04X) is not among the %d characters that the model knows", line, column, r, r, len(v.names))
		}
		out = append(out, id)
		if r == '\n' {
			line, column = line+1, 0
		}
	}
	return out, nil
}

// Decode is the text of tokens; one outside of the vocabulary is U+FFFD.
func (v *Vocabulary) Decode(ids []int32) string {
	var b []byte
	for _, i := range ids {
		if i < 0 || int(i) >= len(v.names) {
			b = utf8.AppendRune(b, utf8.RuneError)
			continue
		}
		b = append(b, v.names[i]...)
	}
	return string(b)
}

// Open makes a data set of the characters of a text file in UTF-8.
func Open(path string, c Config) (*data.Set, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("text: %w", err)
	}
	s, err := Chars(path, string(b), c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Chars makes a data set of the characters of s. An example has the input "tokens" and the target "next", both i32 [Length]; the class names are the
// vocabulary, all characters of s. The last share of the text is the test part.
func Chars(name, s string, c Config) (*data.Set, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if !utf8.ValidString(s) {
		for i, r := range s {
			if _, n := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && n == 1 {
				return nil, fmt.Errorf("text: byte %d is not UTF-8: convert the file first, with iconv for instance", i)
			}
		}
	}
	v := c.Vocabulary
	if v == nil {
		v = Characters(s)
	}
	all, err := v.Encode(s)
	if err != nil {
		return nil, err
	}
	cut := len(all) - int(float64(len(all))*c.Test)
	set := &data.Set{Name: name, Train: newWindows(v, all[:cut], c.Length, c.Stride), Test: newWindows(v, all[cut:], c.Length, c.Length)}
	if set.Train.Len() == 0 || set.Test.Len() == 0 {
		return nil, fmt.Errorf("text: %d characters are too few for training and test examples of %d: shorten length", len(all), c.Length)
	}
	return set, nil
}

// windows are stretches of a text.
type windows struct {
	spec           data.Spec
	tokens         []int32
	length, stride int
}

func newWindows(v *Vocabulary, tokens []int32, length, stride int) *windows {
	spec := specOf(length, len(v.names))
	spec.ClassNames = v.names
	return &windows{spec, tokens, length, stride}
}

// specOf is what examples of so many tokens are.
func specOf(length, classes int) data.Spec {
	field := func(name string) []data.Field {
		return []data.Field{{Name: name, Shape: shape.Of(length), DType: dtype.I32}}
	}
	return data.Spec{Inputs: field("tokens"), Targets: field("next"), Classes: classes}
}

func (w *windows) Spec() data.Spec { return w.spec }

// Len counts the stretches that have a next token for each of theirs.
func (w *windows) Len() int { return stretches(len(w.tokens), w.length, w.stride) }

// stretches counts those of n tokens.
func stretches(n, length, stride int) int {
	if n <= length {
		return 0
	}
	return (n-1-length)/stride + 1
}

func (w *windows) Fill(idx []int, x, y []*tensor.Tensor) error {
	in, next := x[0].I32(), y[0].I32()
	for k, i := range idx {
		at := i * w.stride
		copy(in[k*w.length:(k+1)*w.length], w.tokens[at:])
		copy(next[k*w.length:(k+1)*w.length], w.tokens[at+1:])
	}
	return nil
}
