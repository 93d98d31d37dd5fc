package text

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// golden is what testdata/golden.py has asked the reference implementations.
type golden struct {
	Rows []struct {
		Text          string
		IDs, Full     []int32
		Decoded, Kept string
	}
	Pair   *struct{ IDs, Types []int32 }
	Vocab  map[string]int32
	Merges [][2]string
}

func unpacked(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

func goldens(t testing.TB) map[string]golden {
	t.Helper()
	var all map[string]golden
	if err := json.Unmarshal(unpacked(t, "golden.json"), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// tokenizerOf is the tokenizer that a set of golden results is about.
func tokenizerOf(t testing.TB, name string) *Tokenizer {
	t.Helper()
	var k *Tokenizer
	var err error
	switch name {
	case "unigram", "spbpe":
		k, err = ParseSentencePiece(unpacked(t, name+".model"))
	case "tiktoken_r50k", "tiktoken_cl100k", "tiktoken_o200k":
		pattern := map[string]string{"tiktoken_r50k": gpt2Pattern, "tiktoken_cl100k": cl100kPattern, "tiktoken_o200k": o200kPattern}[name]
		b := unpacked(t, "small.tiktoken")
		k, err = ParseTiktoken(b, pattern, map[string]int64{"<|endoftext|>": int64(bytes.Count(b, []byte("\n")))})
	default:
		k, err = Parse(unpacked(t, name+".json"))
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return k
}

// Every tokenizer gives the numbers and texts of the reference implementation, also after it was written and read again.
func TestGolden(t *testing.T) {
	for name, g := range goldens(t) {
		if g.Rows == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			k := tokenizerOf(t, name)
			j, err := json.Marshal(k)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Parse(j)
			if err != nil {
				t.Fatal(err)
			}
			bad := 0
			for _, r := range g.Rows {
				ids, err := k.Encode(r.Text)
				if err != nil || !slices.Equal(ids, r.IDs) {
					if bad++; bad < 12 {
						t.Errorf("%.60q: %v %v\nwant %v\n%q\n%q", r.Text, ids, err, r.IDs, names(k, ids), names(k, r.IDs))
					}
					continue
				}
				if ids, err := again.Encode(r.Text); err != nil || !slices.Equal(ids, r.IDs) {
					t.Errorf("%.60q after writing and reading: %v %v, want %v", r.Text, ids, err, r.IDs)
				}
				decodeOf := k.Decode
				if strings.HasPrefix(name, "tiktoken") { // it knows no special tokens there
					decodeOf = k.DecodeAll
				}
				if got := decodeOf(r.IDs); got != r.Decoded && !strings.HasPrefix(name, "tiktoken") {
					if bad++; bad < 12 {
						t.Errorf("%.60q decodes to %q, want %q", r.Text, got, r.Decoded)
					}
				}
				if r.Full == nil {
					continue
				}
				if full, err := k.Frame(r.Text); err != nil || !slices.Equal(full, r.Full) {
					t.Errorf("%.60q: framed %v %v, want %v", r.Text, full, err, r.Full)
				}
				if got := k.DecodeAll(r.Full); got != r.Kept {
					if bad++; bad < 12 {
						t.Errorf("%.60q decodes to %q with special tokens, want %q", r.Text, got, r.Kept)
					}
				}
			}
			if bad > 0 {
				t.Errorf("%d of %d texts differ", bad, len(g.Rows))
			}
			if g.Pair != nil {
				ids, types, err := k.FramePair(g.Rows[0].Text, g.Rows[3].Text)
				if err != nil || !slices.Equal(ids, g.Pair.IDs) || !slices.Equal(types, g.Pair.Types) {
					t.Errorf("pair: %v %v %v, want %+v", ids, types, err, g.Pair)
				}
			}
		})
	}
}

func names(k *Tokenizer, ids []int32) (out []string) {
	for _, id := range ids {
		out = append(out, k.Token(id))
	}
	return out
}
