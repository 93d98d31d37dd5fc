package text_test

import (
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	corpus "github.com/jouleml/joule/data/text"
	"github.com/jouleml/joule/text"
)

// all reads every example of a data set.
func all(t *testing.T, d data.Dataset) []int32 {
	t.Helper()
	var out []int32
	x, y := d.Spec().Tensors(1)
	for i := range d.Len() {
		if err := d.Fill([]int{i}, x, y); err != nil {
			t.Fatal(err)
		}
		out = append(append(out, x[0].I32()...), y[0].I32()...)
	}
	return out
}

// A folder of texts becomes one line of tokens with gaps, the same when it is opened again, and of the tokenizer that is asked for.
func TestTokens(t *testing.T) {
	dir, cache := t.TempDir(), t.TempDir()
	one, two := strings.Repeat("the quick brown fox. ", 40), strings.Repeat("über Öl und Käse\n", 50)
	for name, s := range map[string]string{"b.txt": two, "a.txt": one, "c.md": "not this"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	from, err := corpus.Files(dir)
	if err != nil || len(from) != 2 {
		t.Fatalf("%v %v", from, err)
	}
	for setting, size := range map[string]int{"byte": 257, "bpe:280": 280, "char": 26, "word:12": 12, "wordpiece:50": 50, "unigram:27": 27} {
		k, err := corpus.TokenizerFor(setting, from, 0.2)
		if err != nil {
			t.Fatal(err)
		}
		if k.Size() != size {
			t.Errorf("%s: %d tokens, want %d", setting, k.Size(), size)
		}
		c := corpus.Config{Length: 8, Stride: 5, Test: 0.2}
		set, err := corpus.Tokens("t", from, k, c, cache)
		if err != nil {
			t.Fatal(err)
		}
		a, err := k.Encode(one)
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.Encode(two)
		if err != nil {
			t.Fatal(err)
		}
		gap, _ := k.ID(corpus.Gap)
		want := append(append(a, gap), b...)
		cut := len(want) - int(float64(len(want))*0.2)
		if set.Train.Len() != (cut-9)/5+1 || set.Test.Len() != (len(want)-cut-9)/8+1 {
			t.Errorf("%s: %d and %d examples of %d tokens", setting, set.Train.Len(), set.Test.Len(), len(want))
		}
		got := all(t, set.Train)
		for i := range set.Train.Len() {
			if !slices.Equal(got[16*i:16*i+8], want[5*i:5*i+8]) || !slices.Equal(got[16*i+8:16*i+16], want[5*i+1:5*i+9]) {
				t.Fatalf("%s: example %d is %v", setting, i, got[16*i:16*i+16])
			}
		}
		again, err := corpus.Tokens("t", from, k, c, cache)
		if err != nil || !slices.Equal(all(t, again.Train), got) || !slices.Equal(all(t, again.Test), all(t, set.Test)) {
			t.Errorf("%s: opened again it is another (%v)", setting, err)
		}
		kept, err := text.Parse(set.Spec().Tokenizer)
		if err != nil || kept.Decode(want[:5]) != k.Decode(want[:5]) {
			t.Errorf("%s: the tokenizer of the spec: %v", setting, err)
		}
	}
	path := filepath.Join(dir, "bad.txt")
	if err := os.WriteFile(path, []byte("a\xffb"), 0o644); err != nil {
		t.Fatal(err)
	}
	k, err := corpus.TokenizerFor("byte", from, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	bad, err := corpus.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]func() error{
		"is not UTF-8": func() error { _, err := corpus.Tokens("t", bad, k, corpus.Config{}, cache); return err },
		"too few": func() error {
			_, err := corpus.Tokens("t", from[:1], k, corpus.Config{Length: 5000}, cache)
			return err
		},
		"length -1":              func() error { _, err := corpus.Tokens("t", from, k, corpus.Config{Length: -1}, cache); return err },
		"neither a file nor one": func() error { _, err := corpus.TokenizerFor("magic", from, 0.1); return err },
		`"x" is no size`:         func() error { _, err := corpus.TokenizerFor("bpe:x", from, 0.1); return err },
		"no .txt files":          func() error { _, err := corpus.Files(t.TempDir()); return err },
		"no such file":           func() error { _, err := corpus.Files(filepath.Join(dir, "none")); return err },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
	found, err := filepath.Glob(filepath.Join(cache, "*.tokens"))
	if err != nil || len(found) < 5 {
		t.Fatal(found, err)
	}
}

// endless is so many bytes of lines that are never in memory together.
type endless struct{ left int64 }

func (e *endless) Read(b []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(b, "a line of a long text that repeats\n")
	n = int(min(int64(n), e.left))
	e.left -= int64(n)
	return n, nil
}

func (e *endless) Close() error { return nil }

// A corpus is encoded and read without being in memory.
func TestBoundedMemory(t *testing.T) {
	const size = 24 << 20
	from := []corpus.Source{{Name: "long", Bytes: size, Stamp: "1", Open: func() (io.ReadCloser, error) { return &endless{size}, nil }}}
	k, err := corpus.TokenizerFor("byte", from, 0.1)
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	set, err := corpus.Tokens("long", from, k, corpus.Config{Length: 64}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	x, y := set.Spec().Tensors(4)
	if err := set.Train.Fill([]int{0, 7, set.Train.Len() / 2, set.Train.Len() - 1}, x, y); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > size/4 {
		t.Errorf("%d bytes are held for a text of %d", held, int64(size))
	}
	if got := k.Decode(x[0].I32()[:34]); got != "a line of a long text that repeats" {
		t.Errorf("%q", got)
	}
	runtime.KeepAlive(set)
}
