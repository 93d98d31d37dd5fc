//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// wordsSpec has a vocabulary that ranks split, of a number of tokens that no number of ranks divides.
const wordsSpec = `name: words
data: text:words.txt?tokenizer=bpe:601&length=16
model:
  - Embedding: {input_dim: classes, output_dim: 16}
  - TransformerBlock: {num_heads: 4, causal: true}
  - Dense: {units: classes, activation: softmax}
compile: {optimizer: {name: adamw, learning_rate: 0.01, global_clipnorm: 1.0}, loss: sparse_categorical_crossentropy, metrics: [accuracy, bits_per_token]}
fit: {epochs: 3, batch_size: 64}
`

func wordsDir(t *testing.T) string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var words []string
	for range 300 {
		w := ""
		for range 2 + r.IntN(3) {
			w += string("bdfgklmnprst"[r.IntN(12)]) + string("aeiou"[r.IntN(5)])
		}
		words = append(words, w)
	}
	var b strings.Builder
	for i := range 5000 {
		b.WriteString(words[min(r.IntN(300), r.IntN(300))])
		b.WriteByte(" \n"[map[bool]int{i%9 == 8: 1}[true]])
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"words.yaml": wordsSpec, "words.txt": b.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// printed is the last object that a command prints.
func printed(t *testing.T, out []byte, err error) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	v := map[string]any{}
	if err == nil {
		err = json.Unmarshal([]byte(lines[len(lines)-1]), &v)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return v
}

// A language model of which ranks have parts, its vocabulary and the optimizer's state included, is trained, and goes on over other numbers of ranks, as in one process up to rounding; then it is evaluated and writes
// on ranks that have parts: the same loss up to rounding, and the same texts.
func TestTensorWrites(t *testing.T) {
	mpis := mpitest.All(t)
	one := wordsDir(t)
	if out, err := joule(one, "train", "words.yaml", "--quiet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := wordsDir(t)
	for i, c := range []struct {
		ranks int
		args  []string
	}{
		{2, []string{"train", "words.yaml", "--epochs", "1", "--tensor", "2", "--zero", "2", "--shards", "1"}},
		{4, []string{"train", "--resume", "last", "--epochs", "2", "--tensor", "4", "--zero", "1"}},
		{1, []string{"train", "--resume", "last", "--epochs", "3", "--tensor", "1", "--zero", "0"}},
	} {
		run := joule(dir, append(c.args, "--quiet")...)
		if c.ranks > 1 {
			run = onRanks(mpis[i%len(mpis)], c.ranks, dir, append(c.args, "--quiet")...)
		}
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c.args, err, out)
		}
	}
	if err := nearly(saved(t, one), saved(t, dir), 5e-3); err != nil {
		t.Error(err)
	}

	eval := []string{"eval", "--json"}
	write := []string{"generate", "--json", "--tokens", "24", "--temperature", "0", "--prompt", "ba"}
	drawn := []string{"generate", "--json", "--tokens", "8", "--seed", "4", "--prompt", "ba", "--prompt", "tori ke", "--prompt", "\n"}
	beams := []string{"generate", "--json", "--tokens", "8", "--temperature", "0", "--beams", "3"}
	want := map[string]map[string]any{}
	for _, args := range [][]string{eval, write, drawn, beams} {
		out, err := joule(one, args...).Output()
		want[strings.Join(args, " ")] = printed(t, out, err)
	}
	for i, m := range mpis {
		for _, c := range []struct {
			args          []string
			ranks, tensor int
		}{{eval, 2, 2}, {write, 2, 2}, {eval, 4, 2}, {write, 4, 4}, {drawn, 4, 2}, {beams, 2, 2}} {
			if i > 0 && (c.ranks > 2 || fmt.Sprint(c.args) == fmt.Sprint(beams)) { // once is enough
				continue
			}
			args := append(c.args[:len(c.args):len(c.args)], "--tensor", fmt.Sprint(c.tensor))
			out, err := onRanks(m, c.ranks, one, args...).Output()
			got := printed(t, out, err)
			for _, k := range []string{"loss", "accuracy", "bits_per_token", "log_probability"} {
				w, _ := want[strings.Join(c.args, " ")][k].(float64)
				if g, _ := got[k].(float64); !(math.Abs(g-w) <= 5e-5*max(1, math.Abs(w))) {
					t.Errorf("%s, %v on %d: %s is %v, in one process %v", m.Name, args, c.ranks, k, g, w)
				}
			}
			if w := want[strings.Join(c.args, " ")]; fmt.Sprint(got["text"], texts(got)) != fmt.Sprint(w["text"], texts(w)) {
				t.Errorf("%s, %v on %d: %v %v, in one process %v %v", m.Name, args, c.ranks, got["text"], texts(got), w["text"], texts(w))
			}
		}
	}
	for _, c := range []struct {
		ranks int
		args  []string
		want  string
	}{
		{3, []string{"eval", "--tensor", "2"}, "start a multiple of 2"},
		{2, []string{"generate", "--tensor", "2", "--attention"}, "leave out one of the two"},
		{1, []string{"eval", "--tensor", "2"}, "mpirun --bind-to none -n 2 joule eval --tensor 2"},
	} {
		run := joule(one, c.args...)
		if c.ranks > 1 {
			run = onRanks(mpis[0], c.ranks, one, c.args...)
		}
		if out, err := run.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%v: %v\n%s", c.args, err, out)
		}
	}
}

// texts are those of several prompts.
func texts(v map[string]any) (out []string) {
	all, _ := v["texts"].([]any)
	for _, x := range all {
		out = append(out, fmt.Sprint(x.(map[string]any)["text"]))
	}
	return out
}

// Pictures are told apart by ranks that share a network, as by one process.
func TestTensorPredicts(t *testing.T) {
	mpis := mpitest.All(t)
	dir := splitDir(t, "")
	if out, err := joule(dir, "train", "small.yaml", "--quiet", "--epochs", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := []string{"predict"}
	for n := range 3 {
		img := image.NewGray(image.Rect(0, 0, 28, 28))
		for i := 6; i < 22; i++ {
			img.SetGray(8+n*i/4, i, color.Gray{200})
			img.SetGray(9+n*i/4, i, color.Gray{250})
		}
		name := fmt.Sprintf("%d.png", n)
		f, err := os.Create(filepath.Join(dir, name))
		if err == nil {
			err = png.Encode(f, img)
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	want, err := joule(dir, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{2, 4} {
		got, err := onRanks(mpis[n/2%len(mpis)], n, dir, append(args, "--tensor", "2")...).Output()
		if err != nil || string(got) != string(want) {
			t.Errorf("%d ranks: %v\n%s\none process:\n%s", n, err, got, want)
		}
	}
}
