package labelled_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/labelled"
)

func write(t *testing.T, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "f.tsv")
	if err := os.WriteFile(p, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestReadTable(t *testing.T) {
	got, err := labelled.ReadTable(write(t, "good\ta fine day\r\n\nbad\tit\trains\n"))
	if err != nil || !slices.Equal(got, []labelled.Example{{Text: "a fine day", Class: "good"}, {Text: "it\trains", Class: "bad"}}) {
		t.Errorf("%v, %v", got, err)
	}
	for text, want := range map[string]string{"good\ta\nno tab\n": "line 2 is not a class", "\ta\n": "line 1", "a\t \n": "line 1", "a\t\xff\n": "line 1 is not UTF-8"} {
		if _, err := labelled.ReadTable(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := labelled.ReadTable("nothing"); err == nil {
		t.Error("a file that is not there")
	}
}

const packages = `Package: foo
Source: foosrc (1.2)
Description: Tool for foo
 more
Section: utils

Package: foo-doc
Source: foosrc
Section: utils
Description: Tool, for FOO 2

Package: bar
Description: Library of bars
Section: libs

Package: odd
Description: Odd one
Section: zope
`

// Sections with few packages are left out; a source's packages, and texts that are nearly the same, are not on both sides.
func TestSections(t *testing.T) {
	all, err := labelled.Sections(write(t, packages+"\nPackage: baz\nDescription: Library of baz\nSection: libs\n"), 2)
	if err != nil {
		t.Fatal(err)
	}
	want := []labelled.Example{{"Tool for foo", "utils", "foosrc"}, {"Tool, for FOO 2", "utils", "foosrc"}, {"Library of bars", "libs", "bar"}, {"Library of baz", "libs", "baz"}}
	if !slices.Equal(all, want) {
		t.Errorf("%v", all)
	}
	if _, err := labelled.Sections(write(t, packages), 5); err == nil || !strings.Contains(err.Error(), "no section has 5 packages") {
		t.Errorf("error %v", err)
	}
	var many []labelled.Example
	for i := range 400 {
		g := string(rune('a'+i%20)) + string(rune('a'+i/20%10))
		many = append(many, labelled.Example{Text: strings.Repeat("x", 1+i%200) + " y", Class: "c", Group: g})
	}
	train, test := labelled.Split(many, 0.3)
	if len(train)+len(test) != 200 || len(test) < 30 || len(test) > 90 {
		t.Errorf("%d and %d", len(train), len(test))
	}
	in := map[string]bool{}
	for _, e := range test {
		in[e.Group] = true
	}
	for _, e := range train {
		if in[e.Group] {
			t.Fatalf("group %s is on both sides", e.Group)
		}
	}
}

func TestNew(t *testing.T) {
	train := []labelled.Example{{Text: "good good day", Class: "b"}, {Text: "bad day", Class: "a"}, {Text: strings.Repeat("good day ", 20), Class: "b"}}
	k, err := labelled.Train(train, "wordpiece:40")
	if err != nil {
		t.Fatal(err)
	}
	set, err := labelled.New("x", train, train[:1], labelled.Config{Tokenizer: k, Length: 16})
	if err != nil {
		t.Fatal(err)
	}
	s := set.Spec()
	if s.Classes != 2 || !slices.Equal(s.ClassNames, []string{"a", "b"}) || s.Tokenizer == nil {
		t.Errorf("%+v", s)
	}
	b := set.Train.(data.Bucketed)
	if b.Bucket(1) != 0 || b.Bucket(2) != len(b.Buckets())-1 || set.Train.(data.Labeler).Label(1) != 0 {
		t.Errorf("sizes %d %d", b.Bucket(1), b.Bucket(2))
	}
	x, y := s.Tensors(2)
	if err := set.Train.Fill([]int{1, 2}, x, y); err != nil {
		t.Fatal(err)
	}
	ids, err := k.FrameShort("bad day", 16)
	if err != nil {
		t.Fatal(err)
	}
	if n := x[1].I32(); int(n[0]) != len(ids) || n[1] != 16 || !slices.Equal(x[0].I32()[:len(ids)], ids) || x[0].I32()[len(ids)] != 0 || y[0].I32()[1] != 1 {
		t.Errorf("%v %v %v", x[0].I32(), n, y[0].I32())
	}
	small, sy := b.Buckets()[0].Tensors(1)
	if err := set.Train.Fill([]int{2}, small, sy); err == nil {
		t.Error("a text that does not fit")
	}
	for want, c := range map[string]struct {
		train, test []labelled.Example
		c           labelled.Config
	}{
		"a tokenizer is needed":      {train, train, labelled.Config{}},
		"1 classes are too few":      {train[:1], train[:1], labelled.Config{Tokenizer: k}},
		"is of class \"b\", which":   {train, train, labelled.Config{Tokenizer: k, Classes: []string{"a", "c"}}},
		"both parts need some":       {train, nil, labelled.Config{Tokenizer: k}},
		"texts of at most -1 tokens": {train, train, labelled.Config{Tokenizer: k, Length: -1}},
	} {
		if _, err := labelled.New("x", c.train, c.test, c.c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	for _, bad := range []string{"word:3", "wordpiece", "bpe:x"} {
		if _, err := labelled.Train(train, bad); err == nil {
			t.Errorf("tokenizer %s", bad)
		}
	}
}
