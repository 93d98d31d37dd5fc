package text

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func trained(t testing.TB, kind string, size int, from string, special ...string) *Tokenizer {
	t.Helper()
	b, err := NewTrainer(kind, size, special...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadFrom(strings.NewReader(from)); err != nil {
		t.Fatal(err)
	}
	k, err := b.Train()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func corpus(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/corpus.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A vocabulary of byte pairs is the one that the tokenizers library learns from the same lines.
func TestTrainBPE(t *testing.T) {
	b, err := NewTrainer("bpe", 800, "<|endoftext|>")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSuffix(corpus(t), "\n"), "\n") {
		b.Add(l)
	}
	k, err := b.Train()
	if err != nil {
		t.Fatal(err)
	}
	want := goldens(t)["gpt2_train"]
	var m struct {
		Vocab  map[string]int32
		Merges [][2]string
	}
	if err := json.Unmarshal(k.file.Model, &m); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(m.Merges, want.Merges) || !reflect.DeepEqual(m.Vocab, want.Vocab) {
		for i := range min(len(m.Merges), len(want.Merges)) {
			if m.Merges[i] != want.Merges[i] {
				t.Fatalf("join %d is %q, want %q", i, m.Merges[i], want.Merges[i])
			}
		}
		t.Fatalf("%d tokens and %d joins, want %d and %d", len(m.Vocab), len(m.Merges), len(want.Vocab), len(want.Merges))
	}
}

// Each kind gives back the text it was given, as far as it keeps it.
func TestTrainKinds(t *testing.T) {
	text := corpus(t)
	for kind, size := range map[string]int{"byte": 0, "char": 0, "bpe": 400, "word": 150, "wordpiece": 700} {
		k := trained(t, kind, size, text, "<end>")
		if id, ok := k.ID("<end>"); !ok || id != 0 {
			t.Errorf("%s: <end> is %d", kind, id)
		}
		if size > 0 && k.Size() != size {
			t.Errorf("%s: %d tokens, want %d", kind, k.Size(), size)
		}
		ids, err := k.Encode(text + "<end>")
		if err != nil {
			t.Fatal(err)
		}
		if ids[len(ids)-1] != 0 || slices.Max(ids) >= int32(k.Size()) {
			t.Errorf("%s: the end is %v", kind, ids[len(ids)-5:])
		}
		if s := k.Decode(ids); (kind == "byte" || kind == "char" || kind == "bpe") && s != text {
			t.Errorf("%s: %.80q", kind, s)
		}
		if j, err := json.Marshal(trained(t, kind, size, text, "<end>")); err != nil || string(j) != string(must(json.Marshal(k))) {
			t.Errorf("%s: the same text gives another tokenizer (%v)", kind, err)
		}
	}
	k := trained(t, "byte", 0, "")
	if ids, err := k.Encode("aé"); err != nil || !slices.Equal(ids, []int32{'a', 0xc3, 0xa9}) {
		t.Errorf("bytes: %v %v", ids, err)
	}
}

func must[T any](x T, err error) T {
	if err != nil {
		panic(err)
	}
	return x
}

// Blocks cut text at lines, and at characters where lines are too long.
func TestBlocks(t *testing.T) {
	for _, s := range []string{"", "a", strings.Repeat("ein Satz, ü\n", 200_000), strings.Repeat("ü€😀", 400_000), "x" + strings.Repeat("\n", 3<<20)} {
		var all strings.Builder
		n := 0
		if err := Blocks(strings.NewReader(s), func(b string) error {
			if !utf8.ValidString(b) || len(b) > blockSize {
				t.Errorf("a block of %d bytes cuts a character", len(b))
			}
			n++
			all.WriteString(b)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if all.String() != s || len(s) > 2*blockSize && n < 3 {
			t.Errorf("%d bytes in %d blocks of %d", all.Len(), n, len(s))
		}
	}
}

// What the vocabulary lacks, and bytes that are no text.
func TestUnknown(t *testing.T) {
	char := trained(t, "char", 0, "abc")
	if _, err := char.Encode("abz"); err == nil || !strings.Contains(err.Error(), `'z' (U+007A) is not in the vocabulary`) {
		t.Error(err)
	}
	word := trained(t, "word", 3, "a b")
	if ids, err := word.Encode("a q b"); err != nil || !slices.Equal(ids, []int32{1, 0, 2}) {
		t.Errorf("%v %v", ids, err)
	}
	k := trained(t, "bpe", 300, corpus(t))
	for s, want := range map[string]string{"a\xffb": "a\uFFFDb", "\xe2\x82": "\uFFFD", "\xf0\x9f\x98x\xc0\x80": "\uFFFDx\uFFFD\uFFFD", "": ""} {
		ids, err := k.Encode(s)
		if got := k.Decode(ids); err != nil || got != want {
			t.Errorf("%q comes back as %q (%v), want %q", s, got, err, want)
		}
	}
	if s := k.Decode([]int32{-1, 1 << 30}); s != "" {
		t.Errorf("numbers outside: %q", s)
	}
	if s := k.Decode([]int32{must(k.Encode("é"))[0]}); s != "\uFFFD" && s != "é" {
		t.Errorf("half a character: %q", s)
	}
	long := strings.Repeat("supercalifragilistic", 20_000) // one word of 400 kB
	for _, name := range []string{"gpt2", "llama", "bert", "unigram", "spbpe", "tiktoken_cl100k"} {
		k := tokenizerOf(t, name)
		if ids, err := k.Encode(long); err != nil || len(ids) == 0 {
			t.Errorf("%s: %d tokens, %v", name, len(ids), err)
		}
	}
}

// Files that are no tokenizers are errors that say why.
func TestMistakes(t *testing.T) {
	model := func(s string) string { return `{"model":` + s + `}` }
	for text, want := range map[string]string{
		`{`:                                      "unexpected end",
		`{}`:                                     "no model",
		model(`{"type":"Magic"}`):                `type "Magic" is not known`,
		model(`{"type":"BPE","vocab":{}}`):       "vocab: it is empty",
		model(`{"type":"BPE","vocab":{"a":-1}}`): `token "a" has the number -1`,
		model(`{"type":"BPE","vocab":{"a":99999999999}}`):                                                                                "outside [0,",
		model(`{"type":"BPE","vocab":{"a":0,"b":0}}`):                                                                                    "the same number 0",
		model(`{"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]}`):                                                                   "not in the vocabulary",
		model(`{"type":"BPE","vocab":{"a":0},"merges":["a"]}`):                                                                           "not two tokens",
		model(`{"type":"BPE","vocab":{"a":0},"dropout":0.1}`):                                                                            "dropout",
		model(`{"type":"BPE","vocab":{"a":0},"unk_token":"?"}`):                                                                          `unk_token: "?"`,
		model(`{"type":"WordPiece","vocab":{"a":0}}`):                                                                                    `unk_token: "[UNK]"`,
		model(`{"type":"Unigram","vocab":[["a"]]}`):                                                                                      "a token and its score",
		model(`{"type":"Unigram","vocab":[["a",0]],"unk_id":7}`):                                                                         "unk_id: 7",
		`{"model":{"type":"BPE","vocab":{"a":0}},"normalizer":{"type":"NFX"}}`:                                                           `normalizer: type "NFX" is not known, did you mean "NFC"?`,
		`{"model":{"type":"BPE","vocab":{"a":0}},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"("}}}`:                              "pre_tokenizer",
		`{"model":{"type":"BPE","vocab":{"a":0}},"normalizer":{"type":"Precompiled","precompiled_charsmap":"//8="}}`:                     "cut off",
		`{"model":{"type":"BPE","vocab":{"a":0}},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}}]}}`: `"x" of the template is missing`,
		`{"model":{"type":"BPE","vocab":{"a":0}},"decoder":{"type":"CTC"}}`:                                                              `decoder: type "CTC"`,
		`{"model":{"type":"BPE","vocab":{"a":0}},"added_tokens":[{"id":-5,"content":"x"}]}`:                                              "number -5",
	} {
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, not %v", text, want, err)
		}
	}
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, want string }{
		"x.tiktoken":           {"IQ== 0\n", "file's name must say"},
		"cl100k_base.tiktoken": {"IQ== zero\n", "line 1 is not a token"},
		"r50k_base.tiktoken":   {"IQ== 0\n", "the byte 0x00 is missing"},
		"a.model":              {"\x0a\xff", "SentencePiece model"},
		"a.txt":                {"hello", "neither JSON"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: want an error with %q, not %v", name, c.want, err)
		}
	}
	if _, err := NewTrainer("bpe", 0); err == nil || !strings.Contains(err.Error(), "bpe:2000") {
		t.Error(err)
	}
	if _, err := NewTrainer("bpee", 10); err == nil || !strings.Contains(err.Error(), `did you mean "bpe"?`) {
		t.Error(err)
	}
	if b, err := NewTrainer("bpe", 300); err != nil {
		t.Error(err)
	} else if _, err := b.Train(); err == nil {
		t.Error("no text, no error")
	}
}

// Several goroutines may use a tokenizer.
func TestConcurrent(t *testing.T) {
	k := tokenizerOf(t, "gpt2")
	text := corpus(t)
	want := must(k.Encode(text))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if ids, err := k.Encode(text); err != nil || !slices.Equal(ids, want) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	wg.Wait()
}

// The written-out divisions are those of the expressions, and no division loses text.
func FuzzPieces(f *testing.F) {
	for _, s := range []string{"", "it's I'LL\r\n  x  \n y", "12345 ab12", " \u00a0\u2003é'ſt", "'re'RE!!\n\n\r x", "ABCdef ABC's ǅabc日本語ABCd e\u0301\u0301X \u0301A a/b//\n/ ʰAʰ"} {
		f.Add(s)
	}
	type division struct {
		fast func(string, func(string))
		slow *expression
	}
	var ds []division
	for _, p := range []string{gpt2Pattern, cl100kPattern, qwenPattern, o200kPattern} {
		ds = append(ds, division{fastPieces(p), must(compile(p))})
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || len(s) > 1<<12 {
			return
		}
		for i, d := range ds {
			var a, b []string
			d.fast(s, func(p string) { a = append(a, p) })
			(&cutter{d.slow, isolated, false}).split(s, true, func(p string) { b = append(b, p) })
			if !slices.Equal(a, b) {
				t.Fatalf("division %d of %q: %q, the expression gives %q", i, s, a, b)
			}
		}
	})
}

// No text makes a tokenizer fail, and byte-level ones give it back.
func FuzzEncode(f *testing.F) {
	f.Add("hello <s> world<|endoftext|>")
	f.Add("\xff\xfe a\u0301 \U0001f9d1")
	var ks []*Tokenizer
	exact := map[int]bool{}
	for i, name := range []string{"bert", "gpt2", "llama", "t5", "unigram", "spbpe", "words", "tiktoken_o200k", "roberta"} {
		ks = append(ks, tokenizerOf(f, name))
		exact[i] = name == "gpt2" || name == "tiktoken_o200k"
	}
	f.Fuzz(func(t *testing.T, s string) {
		for i, k := range ks {
			ids, err := k.Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if id < 0 || int(id) >= k.Size() {
					t.Fatalf("token %d of %d", id, k.Size())
				}
			}
			if back := k.DecodeAll(ids); exact[i] && back != valid(s) {
				t.Fatalf("%q comes back as %q", s, back)
			}
		}
	})
}

// No file makes the readers fail without an error.
func FuzzParse(f *testing.F) {
	f.Add(unpacked(f, "words.json"))
	f.Add(unpacked(f, "spbpe.model"))
	f.Add([]byte(`{"model":{"type":"BPE","vocab":{"a":0}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func([]byte) (*Tokenizer, error){Parse, ParseSentencePiece} {
			if k, err := parse(b); err == nil {
				ids, _ := k.Encode("a b, c")
				k.Decode(ids)
			}
		}
		ParseTiktoken(b, gpt2Pattern, nil)
	})
}

func BenchmarkEncode(b *testing.B) {
	text := strings.Repeat(corpus(b), 40)
	for _, name := range []string{"bert", "gpt2", "llama3", "t5", "unigram", "tiktoken_o200k"} {
		k := tokenizerOf(b, name)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			var out []int32
			for b.Loop() {
				var err error
				if out, err = k.Append(out[:0], text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
