package kernel

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Every variant of every kernel has been verified on some processor, and the record names nothing that is not there.
func TestVerified(t *testing.T) {
	variants, err := Variants(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(variants) < 20 {
		t.Fatalf("only %d variants were found", len(variants))
	}
	lines, err := ReadVerified(File)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range variants {
		if !slices.ContainsFunc(lines, func(l Line) bool { return l.Package == v.Package && l.Variant == v.Variant }) {
			t.Errorf("%s %s stands in no line of %s: run go run ./internal/kernel/verify on a processor that has it", v.Package, v.Variant, File)
		}
	}
	for _, l := range lines {
		if !slices.ContainsFunc(variants, func(v Variant) bool { return l.Package == v.Package && l.Variant == v.Variant }) {
			t.Errorf("%s names %s %s, which is not there", File, l.Package, l.Variant)
		}
	}
}

func TestRecord(t *testing.T) {
	in := []Line{{"gemm", "avx2", "2026-11-25", "0123456789ab", "Some CPU @ 2 GHz (avx2 fma)"}, {"attention", "portable", "2026-01-02", "-", "Other"}}
	file := filepath.Join(t.TempDir(), File)
	if err := os.WriteFile(file, FormatVerified(slices.Clone(in)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := ReadVerified(file)
	if err != nil || len(out) != 2 || out[1] != in[0] || out[0] != in[1] {
		t.Errorf("%+v, %v", out, err)
	}
	for text, want := range map[string]string{"gemm avx2": "want package", "gemm avx2 yesterday - x": "parsing time", "gemm mmx 2026-01-01 - x": `no variant "mmx"`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadVerified(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if !Runs("portable") || Runs("nosuch") {
		t.Error("what this processor runs")
	}
}

// The names of assembly functions say what they need: from them the record knows which variants there are.
func TestNames(t *testing.T) {
	files, err := filepath.Glob("*/stubs_amd64.go")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range declaration.FindAllStringSubmatch(string(b), -1) {
			if !slices.ContainsFunc(words, func(w struct{ in, variant string }) bool { return strings.Contains(m[1], w.in) }) {
				t.Errorf("%s: %s names no instruction set", f, m[1])
			}
		}
	}
}
