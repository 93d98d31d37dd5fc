package pairs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
)

const english = `Package: lamp
Description-md5: 01
Description-en: shines in the dark
 A lamp that shines. It needs no oil!
 It is made of three parts:
  * a bulb that
    glows
  * a switch
 .
 This package has the lamp.

Package: lamp-dev
Description-md5: 01
Description-en: shines in the dark
 The same again.

Package: fan
Description-md5: 02
Description-en: turns the air
 A fan.

Package: key
Description-md5: 03
Description-en: opens doors
 Only in one language.
`

const german = `Package: lamp
Description-md5: 01
Description-de: leuchtet im Dunkeln
 Eine Lampe, die leuchtet. Sie braucht kein Öl!
 Sie besteht aus drei Teilen:
  * einer Birne, die glüht
  * einem Schalter
 .
 Dieses Paket enthält die Lampe.

Package: fan
Description-md5: 02
Description-de: bewegt die Luft
 Ein Lüfter.
 .
 Noch ein Absatz.
`

func TestDebian(t *testing.T) {
	dir := t.TempDir()
	en, de := filepath.Join(dir, "en"), filepath.Join(dir, "de")
	if err := errors.Join(os.WriteFile(en, []byte(english), 0o644), os.WriteFile(de, []byte(german), 0o644)); err != nil {
		t.Fatal(err)
	}
	got, err := Translations(en, de)
	if err != nil {
		t.Fatal(err)
	}
	want := []Pair{
		{"shines in the dark", "leuchtet im Dunkeln"},
		{"A lamp that shines.", "Eine Lampe, die leuchtet."},
		{"It needs no oil!", "Sie braucht kein Öl!"},
		{"It is made of three parts:", "Sie besteht aus drei Teilen:"},
		{"a bulb that glows", "einer Birne, die glüht"},
		{"a switch", "einem Schalter"},
		{"This package has the lamp.", "Dieses Paket enthält die Lampe."},
		{"turns the air", "bewegt die Luft"}, // the paragraphs of the fan are not as many
	}
	if !reflect.DeepEqual(got, want) {
		for i := range got {
			t.Errorf("%q", got[i])
		}
	}
	s, err := Synopses(en)
	if err != nil || len(s) != 3 || s[2] != (Pair{"Only in one language.", "opens doors"}) || !strings.HasPrefix(s[0].Source, "A lamp that shines. It needs") {
		t.Errorf("%q %v", s, err)
	}
	if _, err := Synopses(filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

// No training pair nearly repeats a test pair, and the order of pairs does not matter.
func TestSplit(t *testing.T) {
	var all []Pair
	for i := range 400 {
		s := fmt.Sprintf("the %c%c tool reads files of kind %d and writes %c%c tables of words", 'a'+i%26, 'a'+i/26, i, 'a'+i%26, 'a'+i/26)
		all = append(all, Pair{s, "x" + s}, Pair{strings.ToUpper(s) + "!", "y" + s})
	}
	train, test, left := Split(all, 0.1)
	if len(test) < 20 || len(test) > 60 || len(train)+left+2*len(test) != len(all) {
		t.Fatalf("%d train, %d test, %d left out of %d", len(train), len(test), left, len(all))
	}
	for _, a := range test {
		for _, b := range train {
			if plain(a.Source) == plain(b.Source) {
				t.Fatalf("%q is in both parts", a.Source)
			}
		}
	}
	slices.Reverse(all)
	if _, again, _ := Split(all, 0.1); len(again) != len(test) {
		t.Errorf("%d test pairs in another order, %d before", len(again), len(test))
	}
	near := newIndex()
	near.add("This package contains the header files of the library libfoo for development")
	for s, want := range map[string]bool{
		"this package contains the header files of the library libbar for development.": true,
		"This package contains the header files":                                        true,
		"something else that reads the header files":                                    false,
		"one": false,
	} {
		if got := near.near(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

func TestNew(t *testing.T) {
	var all []Pair
	for i := range 60 {
		all = append(all, Pair{strings.Repeat("ab ", 1+i%14), strings.Repeat("cd", 1+i%9)})
	}
	c := Config{Vocabulary: 270, Source: 16, Target: 12}
	s, err := New("t", all, all[:9], c)
	if err != nil {
		t.Fatal(err)
	}
	if s.Spec().Grows != "target" || s.Spec().Tokenizer == nil || s.Spec().Classes != 270 {
		t.Errorf("%+v", s.Spec())
	}
	e := s.Train.(*Encoded)
	x, y := s.Spec().Tensors(1)
	for i := range e.Len() {
		if err := e.Fill([]int{i}, x, y); err != nil {
			t.Fatal(err)
		}
		src, in, next := x[0].I32(), x[2].I32(), y[0].I32()
		n := int(x[1].I32()[0])
		if src[n-1] != 2 || n < 16 && src[n] != 0 || in[0] != 1 || !slices.Equal(src[:n], e.source[i]) {
			t.Fatalf("%v %d %v", src, n, in)
		}
		end := slices.Index(next, 2)
		if !slices.Equal(in[1:end+1], next[:end]) || end+1 < 12 && (next[end+1] != -1 || in[end+1] != 0) {
			t.Fatalf("%v > %v", in, next)
		}
	}
	c.Kind, c.Vocabulary = "unigram", 20
	if u, err := New("t", all, all[:9], c); err != nil || u.Spec().Classes > 20 || u.Train.Len() == 0 {
		t.Errorf("unigram pieces: %v", err)
	}
	c.Kind = "words"
	if _, err := New("t", all, all[:9], c); err == nil || !strings.Contains(err.Error(), `tokenizer "words": want bpe or unigram`) {
		t.Error(err)
	}
	c.Kind, c.Vocabulary = "", 270
	// Batches have several sizes and hold every example once; a loader that goes on in the middle gives the same.
	for _, shuffled := range []bool{false, true} {
		cfg := data.LoaderConfig{Batch: 8, Epochs: 1, Shuffle: shuffled, Seed: 5}
		l, err := data.NewLoader(e, cfg)
		if err != nil {
			t.Fatal(err)
		}
		examples, widths := 0, map[int]bool{}
		var third []int32
		for step := 0; ; step++ {
			b, err := l.Next(context.Background())
			if errors.Is(err, io.EOF) {
				if step != l.Steps() || step != (e.Len()+7)/8 {
					t.Errorf("%d steps, %d foreseen", step, l.Steps())
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			examples += b.N
			widths[b.X[0].Shape()[1]] = true
			if step == 3 {
				third = slices.Clone(b.X[0].I32())
			}
		}
		if examples != e.Len() || len(widths) < 3 {
			t.Errorf("%d of %d examples, widths %v", examples, e.Len(), widths)
		}
		l.Close()
		if l, err = data.NewLoader(e, cfg); err != nil {
			t.Fatal(err)
		}
		if err := l.Seek(data.Position{Step: 3}); err != nil {
			t.Fatal(err)
		}
		if b, err := l.Next(context.Background()); err != nil || !slices.Equal(b.X[0].I32(), third) {
			t.Errorf("step 3 after Seek differs (%v)", err)
		}
		l.Close()
	}
	half, err := data.Subset(e, []int{5, 3, 1})
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := half.(data.Bucketed); !ok || b.Bucket(0) != e.Bucket(5) {
		t.Error("a subset loses the sizes")
	}
	cut := c
	cut.Cut, cut.Source = true, 4
	if s, err := New("t", all, all[:9], cut); err != nil || s.Train.Len() <= 12 {
		t.Errorf("cut: %v", err)
	}
	// Sources that are cut off come with short targets too; every size has room for what the ones before it hold.
	cut.Source = 16
	if s, err = New("t", all, all[:9], cut); err != nil {
		t.Fatal(err)
	}
	shapes := s.Train.(*Encoded).Buckets()
	for i, b := range shapes[1:] {
		if b.Inputs[0].Shape[0] < shapes[i].Inputs[0].Shape[0] || b.Inputs[2].Shape[0] < shapes[i].Inputs[2].Shape[0] {
			t.Errorf("size %d, %v, has no room for one before, %v", i+1, b, shapes[i])
		}
	}
	if long, err := New("t", []Pair{{strings.Repeat("ab ", 40), "cd"}}, all[:9], Config{Vocabulary: 270, Source: 16, Target: 12, Cut: true}); err != nil {
		t.Error(err)
	} else if e := long.Train.(*Encoded); e.Buckets()[e.Bucket(0)].Inputs[2].Shape[0] != 6 {
		t.Errorf("a long source with a short target is in size %d", e.Bucket(0))
	}
	for want, f := range map[string]func() error{
		"must be room": func() error { _, err := New("t", all, all, Config{Source: 1}); return err },
		"none of 1":    func() error { _, err := New("t", all, []Pair{{strings.Repeat("xyz ", 99), "a"}}, c); return err },
		"from no text": func() error { _, err := New("t", nil, all, c); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}

// Pairs take other targets, those that do not fit keep their own, and with both the old ones stay too.
func TestRewritten(t *testing.T) {
	all := []Pair{{"ab ab", "cd"}, {"ab", "cdcd"}, {"ab ab ab", "cd cd"}}
	s, err := New("t", all, all[:1], Config{Vocabulary: 270, Source: 16, Target: 12})
	if err != nil {
		t.Fatal(err)
	}
	e := s.Train.(*Encoded)
	texts := []string{"dc dc dc dc", "", strings.Repeat("xyz", 9)}
	for _, both := range []bool{false, true} {
		r, kept, err := e.Rewritten(texts, both)
		if err != nil || kept != 2 {
			t.Fatalf("%d kept, %v", kept, err)
		}
		want := []Pair{{"ab ab", texts[0]}, all[1], all[2]}
		if both {
			want = append(slices.Clone(all), want...)
		}
		if got := Pairs(r); !slices.Equal(got, want) || !reflect.DeepEqual(r.Spec(), e.Spec()) {
			t.Fatalf("%q", got)
		}
		x, y := r.Spec().Tensors(r.Len())
		idx := make([]int, r.Len())
		for i := range idx {
			idx[i] = i
			if b := r.Buckets()[r.Bucket(i)]; len(r.source[i]) > b.Inputs[0].Shape[0] || len(r.target[i]) > b.Inputs[2].Shape[0] {
				t.Errorf("pair %d does not fit its size", i)
			}
		}
		if err := r.Fill(idx, x, y); err != nil {
			t.Fatal(err)
		}
		at := 0
		if both {
			at = 3
		}
		ids, err := e.config.Tokenizer.Encode(texts[0])
		if err != nil || !slices.Equal(y[0].I32()[at*12:at*12+len(ids)+1], append(ids, 2)) {
			t.Errorf("%v: %v %v", both, y[0].I32()[at*12:(at+1)*12], ids)
		}
	}
	if e.Pair(0) != all[0] || e.Len() != 3 {
		t.Error("the pairs themselves have changed")
	}
	if _, _, err := e.Rewritten(texts[:2], false); err == nil || !strings.Contains(err.Error(), "2 new targets for 3 pairs") {
		t.Error(err)
	}
}

func TestReadTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.tsv")
	for text, want := range map[string]string{
		"a b\tc\n\nd\te f\r\n": "", "a b\n": "line 1 is not two texts", "a\tb\nc\t \n": "line 2 is not two texts", "\xff\ta\n": "line 1 is not UTF-8",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := ReadTable(path)
		if want == "" && (err != nil || !slices.Equal(got, []Pair{{"a b", "c"}, {"d", "e f"}})) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory([]Pair{{"the red house", "das rote Haus"}, {"the blue car", "das blaue Auto"}, {"the house of cards", "das Kartenhaus"}})
	for s, want := range map[string]string{"a red house.": "das rote Haus", "the cards": "das Kartenhaus", "zebra": ""} {
		if got := m.Nearest(s).Target; got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
	if s := Lead("It reads e.g. files of text. It writes too."); s != "It reads e.g. files of text." {
		t.Error(s)
	}
}
