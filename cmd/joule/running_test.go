//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// Pictures predicted and texts written on two and three ranks are those of one process, in its order; an error of any rank is everybody's.
func TestRunningOnRanks(t *testing.T) {
	all := mpitest.All(t)
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("small.yaml", []byte(strings.Replace(ranksSpec, "epochs: 3", "epochs: 1", 1)))
	var text strings.Builder
	for i := range 400 {
		fmt.Fprintf(&text, "the %s is %s.\n", []string{"lamp", "stone", "door"}[i%3], []string{"red", "wet", "old", "new"}[i*7%4])
	}
	write("lines.txt", []byte(text.String()))
	write("writer.yaml", []byte(`name: writer
data: text:lines.txt?length=16
model:
  - Embedding: {input_dim: classes, output_dim: 16}
  - TransformerBlock: {num_heads: 2, causal: true}
  - Dense: {units: classes, activation: softmax}
compile: {optimizer: {name: adam, learning_rate: 0.01}, loss: sparse_categorical_crossentropy}
fit: {epochs: 1}
`))
	predict, generate := []string{"predict"}, []string{"generate", "--tokens", "12", "--temperature", "0.9", "--json"}
	for i := range 5 {
		m := image.NewGray(image.Rect(0, 0, 28, 28))
		for k := range 20 {
			m.SetGray(6+(k*i)%16, 4+k, color.Gray{255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, m); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%d.png", i)
		write(name, b.Bytes())
		predict, generate = append(predict, name), append(generate, "--prompt", []string{"the ", "lamp", "is", "stone is", "d"}[i])
	}
	for _, c := range []struct {
		spec string
		args []string
	}{{"small.yaml", predict}, {"writer.yaml", generate}} {
		if out, err := joule(dir, "train", c.spec, "--quiet").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		answer := func(out []byte, err error) string {
			t.Helper()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var texts struct{ Texts json.RawMessage }
			if json.Unmarshal(out, &texts) == nil { // beside the texts stand seconds and joules
				return string(texts.Texts)
			}
			return string(out)
		}
		want := answer(joule(dir, c.args...).Output())
		for i, m := range all {
			if got := answer(onRanks(m, 2+i%2, dir, c.args...).Output()); got != want || strings.Count(got, "\n")+strings.Count(got, `"text"`) != 5 {
				t.Errorf("%s: %s, in one process %s", m.Name, got, want)
			}
		}
	}
	one, err := onRanks(all[0], 2, dir, "generate", "--prompt", "the ", "--tokens", "5").CombinedOutput()
	if err != nil || strings.Count(string(one), "5 tokens after a prompt of 4") != 1 {
		t.Errorf("%v\n%s", err, one)
	}
	if out, err := onRanks(all[0], 2, dir, "generate", "--prompt", "the ", "--prompt", "\u2603").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("prompt")) {
		t.Errorf("%v\n%s", err, out)
	}
}
