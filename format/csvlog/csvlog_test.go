package csvlog

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func open(t *testing.T, path string) *Log {
	t.Helper()
	l, err := Open(path, "epoch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func add(t *testing.T, l *Log, key int64, values ...Value) {
	t.Helper()
	if err := l.Append(key, values...); err != nil {
		t.Fatal(err)
	}
}

func TestAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.csv")
	l := open(t, path)
	if _, err := os.Stat(path); err == nil {
		t.Error("Open made a file before there was anything to say")
	}
	add(t, l, 1, Value{"loss", 0.5}, Value{"accuracy", 1.0 / 3})
	add(t, l, 2, Value{"accuracy", math.NaN()}, Value{"loss", math.Inf(1)})
	add(t, l, 3, Value{"loss", 1e-300})
	if got, want := text(t, path), "epoch,loss,accuracy\n1,0.5,0.3333333333333333\n2,+Inf,NaN\n3,1e-300,NaN\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if err := l.Sync(); err != nil {
		t.Error(err)
	}
	l.Close()

	// Another process goes on; a new metric gives a new column.
	l = open(t, path)
	add(t, l, 4, Value{"loss", 0.1})
	add(t, l, 5, Value{`val "x", y`, 7})
	if got, want := text(t, path), "epoch,loss,accuracy,\"val \"\"x\"\", y\"\n1,0.5,0.3333333333333333,NaN\n2,+Inf,NaN,NaN\n3,1e-300,NaN,NaN\n4,0.1,NaN,NaN\n5,NaN,NaN,7\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	// Back to epoch 2: what came after never happened.
	add(t, l, 2, Value{"loss", 0.25})
	add(t, l, 3, Value{"loss", 0.125})
	tab, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := tab.Column("loss"); !reflect.DeepEqual(got, []float64{0.5, 0.25, 0.125}) {
		t.Error(got)
	}
	if tab.Column("none") != nil || tab.Rows[2].Key != 3 {
		t.Error(tab)
	}
	if err := l.Append(9, Value{"a", 1}, Value{"a", 2}); err == nil {
		t.Error("a name given twice")
	}
	if err := l.Append(9, Value{"epoch", 1}); err == nil {
		t.Error("a metric with the key's name")
	}
}

// TestCut: whatever length a kill leaves, the whole rows stay and the log goes on.
func TestCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.csv")
	full := "epoch,loss\n1,0.5\n2,0.25\n"
	for n := range len(full) {
		if err := os.WriteFile(path, []byte(full[:n]), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err != nil {
			t.Fatalf("%q: %v", full[:n], err)
		}
		l := open(t, path)
		add(t, l, 7, Value{"loss", 3})
		l.Close()
		want := full[:strings.LastIndexByte(full[:n], '\n')+1]
		if want == "" {
			want = "epoch,loss\n"
		}
		if got := text(t, path); got != want+"7,3\n" {
			t.Fatalf("%q became %q", full[:n], got)
		}
	}
}

// TestFailedWrite: after a write that failed half-way, the next one repairs the file.
func TestFailedWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.csv")
	l := open(t, path)
	add(t, l, 1, Value{"loss", 1})
	add(t, l, 2, Value{"loss", 2})
	l.f.Close() // the next write fails
	if err := l.Append(3, Value{"loss", 3}); err == nil || !strings.Contains(err.Error(), path) {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("epoch,loss\n1,1\n2,2\n3,"), 0o666); err != nil {
		t.Fatal(err)
	}
	add(t, l, 4, Value{"loss", 4})
	if got := text(t, path); got != "epoch,loss\n1,1\n2,2\n3,3\n4,4\n" {
		t.Errorf("%q", got)
	}
}

func TestBadFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.csv")
	for content, want := range map[string]string{
		"epoch,loss\nx,1\n":          `line 2: epoch is "x"`,
		"epoch,loss\n1,x\n":          `line 2: loss is "x"`,
		"epoch,loss\n1,1\n1,1\n":     "line 3: epoch 1 after 1",
		"epoch,loss\n1\n":            "wrong number of fields",
		"epoch,loss,loss\n":          "empty or taken",
		"epoch,\n":                   "empty or taken",
		"epoch,\"loss\n1,2\n":        "line",
		"epoch,loss\n\x00\x00\x00\n": "line 2",
	} {
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
		for _, f := range []func() error{
			func() error { _, err := Read(path); return err },
			func() error { _, err := Open(path, "epoch"); return err },
		} {
			if err := f(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q: %v, want %q", content, err, want)
			}
		}
		if got := text(t, path); got != content {
			t.Errorf("a file that is not ours was changed: %q", got)
		}
	}
	os.WriteFile(path, []byte("step,loss\n"), 0o666)
	if _, err := Open(path, "epoch"); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
	if _, err := Open(path, ""); err == nil {
		t.Error("no key")
	}
	if _, err := Open(t.TempDir(), "epoch"); err == nil {
		t.Error("a folder")
	}
	l := open(t, filepath.Join(t.TempDir(), "no", "h.csv"))
	if err := l.Append(1, Value{"a", 1}); err == nil || !strings.Contains(err.Error(), "create it first") {
		t.Error(err)
	}
	if err := os.Truncate(path, MaxSize+1); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path); !errors.Is(err, ErrFormat) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("epoch,loss\n1,0.5\n2,NaN\n3,\n")
	f.Add("epoch,\"a\"\"b\"\n-1,1e999\n")
	f.Fuzz(func(t *testing.T, s string) {
		tab, err := Parse(s)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for _, c := range tab.Columns {
			if len(tab.Column(c)) != len(tab.Rows) {
				t.Fatal("ragged")
			}
		}
		// Writing it again gives the same table.
		if tab.Key == "" || len(tab.Rows) == 0 {
			return
		}
		l := &Log{path: filepath.Join(t.TempDir(), "h"), t: *tab}
		if err := l.rewrite(); err != nil {
			t.Fatal(err)
		}
		again, err := Read(l.path)
		if err != nil {
			t.Fatalf("%v after writing %q", err, s)
		}
		if again.Key != tab.Key || !reflect.DeepEqual(again.Columns, tab.Columns) || len(again.Rows) != len(tab.Rows) {
			t.Fatalf("%v became %v", tab, again)
		}
		for r := range tab.Rows {
			for i, v := range tab.Rows[r].Values {
				if w := again.Rows[r].Values[i]; v != w && !(v != v && w != w) {
					t.Fatalf("%v became %v", v, w)
				}
			}
		}
	})
}
