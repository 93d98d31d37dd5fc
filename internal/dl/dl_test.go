package dl

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"
)

// compile makes a shared library of C source.
func compile(t *testing.T, source string) string {
	t.Helper()
	if !Available() {
		t.Skip(ErrUnavailable)
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler (cc) to make a library to open")
	}
	dir := t.TempDir()
	src, lib := filepath.Join(dir, "lib.c"), filepath.Join(dir, "libjouletest.so")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-O1", "-o", lib, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return lib
}

func TestLibrary(t *testing.T) {
	path := compile(t, `
#include <string.h>
double scale(double a, float b, int c) { return a * b + c; }
unsigned length(const char *s) { return s ? strlen(s) : 999; }
void fill(unsigned long long *out, int n) { for (int i = 0; i < n; i++) out[i] = 1000 + i; }
long sum(long a, long b, long c, long d, long e, long f, long g, long h) { return a + 2*b + 3*c + 4*d + 5*e + 6*f + 7*g + 8*h; }
int table = 41;
`)
	l, err := Open("libjoulenothere.so.9", path)
	if err != nil {
		t.Fatal(err)
	}
	if l.Path() != path {
		t.Errorf("opened %s", l.Path())
	}
	var scale func(float64, float32, int32) float64
	var length func(string) uint32
	var fill func(*uint64, int32)
	for name, fn := range map[string]any{"scale": &scale, "length": &length, "fill": &fill} {
		if err := l.Func(fn, name); err != nil {
			t.Fatal(err)
		}
	}
	if got := scale(1.5, 2, 4); got != 7 {
		t.Errorf("scale: %g", got)
	}
	if got := length("joule"); got != 5 {
		t.Errorf("length: %d", got)
	}
	out := make([]uint64, 3)
	fill(&out[0], 3)
	if out[0] != 1000 || out[2] != 1002 {
		t.Errorf("fill: %v", out)
	}
	sum, err := l.Sym("sum")
	if err != nil {
		t.Fatal(err)
	}
	if got := Call(sum, 1, 1, 1, 1, 1, 1, 1, 1); got != 36 { // more arguments than registers on amd64
		t.Errorf("sum: %d", got)
	}
	f, err := l.Sym("fill")
	if err != nil {
		t.Fatal(err)
	}
	var pin runtime.Pinner
	pin.Pin(&out[0])
	Call(f, uintptr(unsafe.Pointer(&out[0])), 1)
	pin.Unpin()
	if err := l.Func(&scale, "nothing"); err == nil || !strings.Contains(err.Error(), "nothing") || !strings.Contains(err.Error(), path) {
		t.Errorf("a symbol that is not there: %v", err)
	}
}

func TestNotThere(t *testing.T) {
	if !Available() {
		if _, err := Open("libc.so.6"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
		t.Skip(ErrUnavailable)
	}
	broken := filepath.Join(t.TempDir(), "broken.so")
	if err := os.WriteFile(broken, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open("libjoulenothere.so.9", broken)
	if err == nil || !strings.Contains(err.Error(), "libjoulenothere.so.9") || !strings.Contains(err.Error(), broken) {
		t.Errorf("every path and reason: %v", err)
	}
	for _, paths := range [][]string{nil, {""}, {"a\x00b"}} {
		if _, err := Open(paths...); err == nil {
			t.Errorf("%q opened", paths)
		}
	}
}
