package generate

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/jouleml/joule/train"
)

// A model writes once about the same texts with the same options: files are read again, not for other texts, options or weights, nor when they are damaged.
func TestOnce(t *testing.T) {
	set := numerals(t)
	m := small(t, set.Spec(), 1)
	ctx := context.Background()
	a, err := NewAnswerer(m)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "cache")
	texts := []string{"3 1 4", "2", "0 0 1"}
	o := Options{Beams: 2, LengthPenalty: 1}
	want, err := a.Run(ctx, texts, o)
	if err != nil {
		t.Fatal(err)
	}
	once := func(texts []string, o Options, computed int) []string {
		t.Helper()
		got, n, err := a.Once(ctx, texts, o, dir)
		if err != nil || n != computed || len(got) != len(texts) {
			t.Fatalf("%q, %d written now, want %d: %v", got, n, computed, err)
		}
		return got
	}
	for i, got := range once(texts, o, 3) {
		if got != want[i].Text {
			t.Errorf("%q: %q, want %q", texts[i], got, want[i].Text)
		}
	}
	first := once(texts, o, 0)
	once(texts[:2], o, 2)
	once(texts, Options{Beams: 1}, 3)
	files, err := filepath.Glob(filepath.Join(dir, "*.texts"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v %v", files, err)
	}
	for _, damage := range []func(b []byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return nil },
		func(b []byte) []byte { return bytes.Repeat(b, 2) },
	} {
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err := errors.Join(err, os.WriteFile(f, damage(b), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if again := once(texts, o, 3); !slices.Equal(again, first) {
			t.Errorf("%q, then %q", first, again)
		}
	}
	if _, err := m.Fit(ctx, set.Train, train.Epochs(1)); err != nil {
		t.Fatal(err)
	}
	once(texts, o, 3) // other weights
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := a.Once(stopped, []string{"4"}, o, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}
