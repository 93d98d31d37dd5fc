//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"one", "", strings.Repeat("long", 1<<16)} {
		if err := WriteBytes(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Fatalf("%d bytes, want %d (%v)", len(got), len(content), err)
		}
	}
	stop := errors.New("stop")
	err := Write(path, func(w io.Writer) error {
		w.Write(make([]byte, 1<<20))
		return stop
	})
	if !errors.Is(err, stop) || !strings.Contains(err.Error(), path) {
		t.Error(err)
	}
	if got, _ := os.ReadFile(path); len(got) != 4<<16 {
		t.Error("a failed write changed the file")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Error("left behind:", entries)
	}
}

// TestRelative: a bare name lies in the current folder.
func TestRelative(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := WriteBytes("f", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("f"); err != nil {
		t.Error(err)
	}
}

func TestMkdirAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "c")
	for range 2 {
		if err := MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := MkdirAll(filepath.Join(file, "d")); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
}

func TestIsTemp(t *testing.T) {
	for name, want := range map[string]bool{".a.0123.tmp": true, "a.tmp": false, ".profile": false, "": false} {
		if IsTemp(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestRemedy(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{syscall.ENOSPC, "disk is full"},
		{syscall.EROFS, "read-only"},
		{syscall.EACCES, "no permission"},
		{syscall.ENOENT, "create it first"},
		{errors.New("other"), ""},
	} {
		got := Remedy(fmt.Errorf("w: %w", &os.PathError{Op: "write", Path: "p", Err: c.err}))
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%v: %q", c.err, got)
		}
	}
	if err := WriteBytes(filepath.Join(t.TempDir(), "no", "f"), nil); err == nil || !strings.Contains(err.Error(), "create it first") {
		t.Error(err)
	}
}

// Room is taken and given back; where there is none, or the file could not be written, it is said.
func TestReserve(t *testing.T) {
	dir := t.TempDir()
	release, err := Reserve(filepath.Join(dir, "f"), 100_000)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !IsTemp(entries[0].Name()) {
		t.Fatal(entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Size() != 100_000 {
		t.Error(info, err)
	}
	release()
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Error("left behind:", entries)
	}
	for path, want := range map[string]string{dir: "it is a folder", filepath.Join(dir, "none", "f"): "create it first"} {
		if _, err := Reserve(path, 1); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
