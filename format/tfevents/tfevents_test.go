package tfevents

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// clock gives 1,700,000,000.25 s and a second more on each call after the two that name the file and its first event.
func clock() func() time.Time {
	n := -2
	return func() time.Time {
		n++
		return time.UnixMicro(1_700_000_000_250_000).Add(time.Duration(max(n, 0)) * time.Second)
	}
}

// TestReference writes what testdata/make.py wrote with TensorBoard's own classes, and compares the bytes.
func TestReference(t *testing.T) {
	want, err := os.ReadFile("testdata/reference.tfevents")
	if err != nil {
		t.Fatal(err)
	}
	w, err := create(filepath.Join(t.TempDir(), "new", "folder"), clock())
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		w.Text("spec", 0, "# Spec\n\n| a | b |\n|---|---|\n| ä | 1 |"),
		w.Scalars(1, Scalar{"train/loss", 0.5}, Scalar{"train/accuracy", 0.75}),
		w.Scalars(300, Scalar{"train/loss", math.Inf(1)}, Scalar{"joules", 1e6}),
		w.Text("spec", 1<<40, strings.Repeat("long ", 100)),
		w.Scalars(1<<40, Scalar{"train/loss", math.Copysign(0, -1)}),
		w.Scalars(7), // nothing
		w.Close(),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	if !strings.HasPrefix(filepath.Base(w.Path()), "events.out.tfevents.1700000000.") {
		t.Error(w.Path())
	}
}

// records splits a file and checks its sums.
func records(t *testing.T, b []byte) [][]byte {
	t.Helper()
	var out [][]byte
	for len(b) > 0 {
		n := binary.LittleEndian.Uint64(b)
		if binary.LittleEndian.Uint32(b[8:]) != masked(b[:8]) || binary.LittleEndian.Uint32(b[12+n:]) != masked(b[12:12+n]) {
			t.Fatal("a checksum is wrong")
		}
		out = append(out, b[12:12+n])
		b = b[16+n:]
	}
	return out
}

// TestSeveral: writers of one process in one second, and goroutines on one writer, do not disturb each other.
func TestSeveral(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 3 {
		w, err := Create(dir)
		if err != nil {
			t.Fatal(err)
		}
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					if err := w.Scalars(int64(i), Scalar{string(rune('a' + g)), float64(i)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "events.out.tfevents.*"))
	if err != nil || len(files) != 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(records(t, b)); got != 201 {
			t.Errorf("%d records, want 201", got)
		}
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	if w.Scalars(1, Scalar{}) == nil || w.Text("", 1, "x") == nil {
		t.Error("an empty tag was written")
	}
	if err := w.Text("bad \xff", 1, "bad \xff"); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	if r := records(t, b); len(r) != 2 || bytes.ContainsRune(r[1], 0xff) || !bytes.Contains(r[1], []byte("bad \ufffd")) {
		t.Errorf("%q", r)
	}
	w.Close()
	if err := w.Scalars(1, Scalar{"a", 1}); !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), w.Path()) {
		t.Error(err)
	}
	if _, err := Create(w.Path()); err == nil || !strings.Contains(err.Error(), w.Path()) {
		t.Error("a file as folder:", err)
	}
}
