// Package labelled makes data sets of texts with a class each: topics, sections, feelings.
//
// An example has the inputs "tokens" i32 [Length], the text as its tokenizer frames it, cut off at its end where it is too long, and "length" i32, how many tokens count; its target is the
// class, "label" i32. Batches hold texts of one of several lengths, so that little of a batch is padding.
package labelled

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/tabs"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
)

// Example is a text and its class. Examples of one Group, if it is not "", are never divided among training and test part.
type Example struct{ Text, Class, Group string }

// ReadTable reads lines of a class and a text with a tab between them. Empty lines do not count.
func ReadTable(path string) ([]Example, error) {
	var out []Example
	err := tabs.Read(path, "a class and a text", func(class, words string) {
		out = append(out, Example{words, strings.TrimSpace(class), ""})
	})
	if err != nil {
		return nil, fmt.Errorf("labelled: %w", err)
	}
	return out, nil
}

// Sections reads one of Debian's lists of packages: the synopsis of each, and the section that it is in, of those sections that have at least so many packages. Packages of one source are a group.
func Sections(path string, least int) ([]Example, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("labelled: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<24)
	var all []Example
	count := map[string]int{}
	fields := map[string]string{}
	flush := func() {
		if section, synopsis := fields["Section"], fields["Description"]; section != "" && synopsis != "" {
			source, _, _ := strings.Cut(fields["Source"], " ") // a version may follow
			if source == "" {
				source = fields["Package"]
			}
			all = append(all, Example{synopsis, section, source})
			count[section]++
		}
		clear(fields)
	}
	for s.Scan() {
		l := s.Text()
		if l == "" {
			flush()
			continue
		}
		if key, value, ok := strings.Cut(l, ": "); ok && l[0] != ' ' {
			switch key {
			case "Package", "Source", "Section", "Description":
				fields[key] = strings.TrimSpace(value)
			}
		}
	}
	flush()
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("labelled: %s: %w", path, err)
	}
	all = slices.DeleteFunc(all, func(e Example) bool { return count[e.Class] < least })
	if len(all) == 0 {
		return nil, fmt.Errorf("labelled: %s: no section has %d packages: is it a list of packages?", path, least)
	}
	return all, nil
}

// Split takes a share of the groups for testing; an example without a group is one of its own. Of texts that are the same but for case, digits and signs only the first stays, so that nothing that is tested
// has been seen. What is tested is decided by a hash of the group, whatever the order.
func Split(all []Example, share float64) (train, test []Example) {
	seen := map[string]bool{}
	for _, tested := range []bool{true, false} {
		for _, e := range all {
			k, group := plain(e.Text), e.Group
			if group == "" {
				group = k
			}
			h := fnv.New64a()
			h.Write([]byte(group))
			if in := scatter(h.Sum64()) < share; in != tested || seen[k] {
				continue
			}
			seen[k] = true
			if tested {
				test = append(test, e)
			} else {
				train = append(train, e)
			}
		}
	}
	return train, test
}

// scatter is a hash as a number in [0, 1): names that differ little lie far from each other (the finaliser of SplitMix64; Steele, Lea & Flood 2014).
func scatter(h uint64) float64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return float64((h^h>>31)>>11) / (1 << 53)
}

// plain is a text's letters, in small ones, with a space between words.
func plain(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) }), " ")
}

// Config says how texts become examples.
type Config struct {
	Length    int             // tokens of a text at most; 0: 64
	Tokenizer *text.Tokenizer // needed; Train makes one
	Classes   []string        // in the order of their numbers; nil: those of the training part, by name
}

// Train makes a tokenizer of the texts; setting is wordpiece:SIZE or bpe:SIZE. Token 0 is <pad>.
func Train(from []Example, setting string) (*text.Tokenizer, error) {
	kind, number, ok := strings.Cut(setting, ":")
	size, err := strconv.Atoi(number)
	if !ok || err != nil || kind != "wordpiece" && kind != "bpe" {
		return nil, fmt.Errorf("labelled: tokenizer %q must be wordpiece:SIZE or bpe:SIZE, such as wordpiece:8000", setting)
	}
	t, err := text.NewTrainer(kind, size, "<pad>")
	if err != nil {
		return nil, err
	}
	for _, e := range from {
		t.Add(e.Text)
	}
	return t.Train()
}

// New makes a data set of a training and a test part.
func New(name string, train, test []Example, c Config) (*data.Set, error) {
	c.Length = cmp.Or(c.Length, 64)
	if c.Length < 1 || c.Length > 1<<20 {
		return nil, fmt.Errorf("labelled: texts of at most %d tokens: from 1 to %d are possible", c.Length, 1<<20)
	}
	if c.Tokenizer == nil {
		return nil, errors.New("labelled: a tokenizer is needed: Train makes one")
	}
	if c.Classes == nil {
		for _, e := range train {
			c.Classes = append(c.Classes, e.Class)
		}
		slices.Sort(c.Classes)
		c.Classes = slices.Compact(c.Classes)
	}
	if len(c.Classes) < 2 {
		return nil, fmt.Errorf("labelled: %d classes are too few to tell apart", len(c.Classes))
	}
	j, err := json.Marshal(c.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("labelled: %w", err)
	}
	number := map[string]int32{}
	for i, s := range c.Classes {
		number[s] = int32(i)
	}
	set := &data.Set{Name: name}
	for _, p := range []struct {
		to   *data.Dataset
		from []Example
	}{{&set.Train, train}, {&set.Test, test}} {
		e := &Encoded{spec: specOf(c, c.Length, j)}
		for _, s := range sizes {
			e.sizes = append(e.sizes, specOf(c, (c.Length*s+7)/8, j))
		}
		for i, x := range p.from {
			class, ok := number[x.Class]
			if !ok {
				return nil, fmt.Errorf("labelled: text %d is of class %q, which is not among %s", i, x.Class, strings.Join(c.Classes, ", "))
			}
			ids, err := c.Tokenizer.FrameShort(x.Text, c.Length)
			if err != nil {
				return nil, fmt.Errorf("labelled: text %d: %w", i, err)
			}
			k := 0
			for len(ids) > e.sizes[k].Inputs[0].Shape[0] {
				k++
			}
			e.tokens, e.classes, e.size, e.texts = append(e.tokens, ids), append(e.classes, class), append(e.size, uint8(k)), append(e.texts, x.Text)
		}
		*p.to = e
	}
	if set.Train.Len() == 0 || set.Test.Len() == 0 {
		return nil, fmt.Errorf("labelled: %d training and %d test texts: both parts need some", set.Train.Len(), set.Test.Len())
	}
	return set, nil
}

func specOf(c Config, length int, tokenizer json.RawMessage) data.Spec {
	return data.Spec{
		Inputs:  []data.Field{{Name: "tokens", Shape: shape.Of(length), DType: dtype.I32}, {Name: "length", Shape: shape.Of(), DType: dtype.I32}},
		Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}},
		Classes: len(c.Classes), ClassNames: c.Classes, Tokenizer: tokenizer,
	}
}

// sizes of batches, as shares of the greatest length in eighths.
var sizes = []int{2, 3, 4, 6, 8}

// Encoded are texts as tokens. It is a data.Bucketed and a data.Labeler.
type Encoded struct {
	spec    data.Spec
	sizes   []data.Spec
	size    []uint8
	tokens  [][]int32
	classes []int32
	texts   []string
}

// Spec implements data.Dataset.
func (e *Encoded) Spec() data.Spec { return e.spec }

// Len implements data.Dataset.
func (e *Encoded) Len() int { return len(e.tokens) }

// Text is the text of an example.
func (e *Encoded) Text(i int) string { return e.texts[i] }

// Label implements data.Labeler.
func (e *Encoded) Label(i int) int { return int(e.classes[i]) }

// Buckets implements data.Bucketed.
func (e *Encoded) Buckets() []data.Spec { return e.sizes }

// Bucket implements data.Bucketed.
func (e *Encoded) Bucket(i int) int { return int(e.size[i]) }

// Fill implements data.Dataset.
func (e *Encoded) Fill(idx []int, x, y []*tensor.Tensor) error {
	tokens, length, label := x[0].I32(), x[1].I32(), y[0].I32()
	n := x[0].Shape()[1]
	for k, i := range idx {
		if len(e.tokens[i]) > n {
			return errors.New("labelled: a text is longer than the batch has room for")
		}
		row := tokens[k*n : (k+1)*n]
		clear(row)
		copy(row, e.tokens[i])
		length[k], label[k] = int32(len(e.tokens[i])), e.classes[i]
	}
	return nil
}
