// Package kernel keeps the record of which kernel variants have been tested on which processors, in the file VERIFIED. The kernels are in the packages below it.
package kernel

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/internal/isa"
)

// File is the name of the record, in this package's folder.
const File = "VERIFIED"

// Variant is what a package has for one instruction set.
type Variant struct {
	Package string // "gemm"
	Variant string // "portable", "avx2", "avxvnni", "avx512", "vnni", "bf16" or "amx"
	Sum     string // of the package's sources, to tell whether they have changed
}

// Line is one entry of the record: the variant's tests passed on that processor on that day.
type Line struct {
	Package, Variant string
	Date             string // 2026-11-25
	Sum              string // "-": not known
	CPU              string
}

// words are how the names of assembly functions say what they need; what is part of another comes behind it.
var words = []struct{ in, variant string }{{"AVXVNNI", "avxvnni"}, {"AVX2", "avx2"}, {"AVX512", "avx512"}, {"VNNI", "vnni"}, {"BF16", "bf16"}, {"AMX", "amx"}}

var declaration = regexp.MustCompile(`(?m)^func (\w+)\(`)

// Variants lists the variants of all packages under dir, which is this package's folder: "portable" of each, and what the declarations of its assembly name.
func Variants(dir string) ([]Variant, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	var out []Variant
	for _, e := range entries {
		files, err := filepath.Glob(filepath.Join(dir, e.Name(), "*.go"))
		if err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
		files = slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, "_test.go") })
		if !e.IsDir() || len(files) == 0 || e.Name() == "verify" {
			continue
		}
		asm, err := filepath.Glob(filepath.Join(dir, e.Name(), "*.s"))
		if err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
		has := map[string]bool{"portable": true}
		sum := sha256.New()
		for _, f := range append(files, asm...) {
			b, err := os.ReadFile(f)
			if err != nil {
				return nil, fmt.Errorf("kernel: %w", err)
			}
			fmt.Fprintf(sum, "%s %d\n", filepath.Base(f), len(b))
			sum.Write(b)
			if !strings.HasSuffix(f, "stubs_amd64.go") {
				continue
			}
			for _, m := range declaration.FindAllStringSubmatch(string(b), -1) {
				name := m[1]
				for _, w := range words {
					if strings.Contains(name, w.in) {
						has[w.variant] = true
						name = strings.ReplaceAll(name, w.in, "")
					}
				}
			}
		}
		for _, v := range append([]string{"portable"}, variantNames()...) {
			if has[v] {
				out = append(out, Variant{e.Name(), v, hex.EncodeToString(sum.Sum(nil))[:12]})
			}
		}
	}
	return out, nil
}

func variantNames() []string {
	var out []string
	for _, w := range words {
		out = append(out, w.variant)
	}
	return out
}

// Runs reports whether this processor runs a variant, so that its tests have run it.
func Runs(variant string) bool {
	if l, err := isa.Parse(variant); err == nil {
		return isa.Has(l)
	}
	return slices.Contains(isa.Features(), variant)
}

const header = `# Which kernel variants have passed their tests, on which processor and when. Written by: go run ./internal/kernel/verify
# Before this record was kept, all tests were run on two cores of a Zen 4 server processor with AVX-512 (docs/benchmarks/zen4.md, 2026-11-24).
# package variant date sources processor
`

// FormatVerified is the text of a record.
func FormatVerified(lines []Line) []byte {
	slices.SortFunc(lines, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.CPU, b.CPU), cmp.Compare(a.Package, b.Package), cmp.Compare(a.Variant, b.Variant))
	})
	var b strings.Builder
	b.WriteString(header)
	for _, l := range lines {
		fmt.Fprintf(&b, "%-10s %-9s %s %-12s %s\n", l.Package, l.Variant, l.Date, l.Sum, l.CPU)
	}
	return []byte(b.String())
}

// ReadVerified reads a record.
func ReadVerified(path string) ([]Line, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []Line
	for i, text := range strings.Split(string(b), "\n") {
		if text == "" || text[0] == '#' {
			continue
		}
		f := strings.Fields(text)
		if len(f) < 5 {
			return nil, fmt.Errorf("%s:%d: want package, variant, date, sources and processor", path, i+1)
		}
		if _, err := time.Parse(time.DateOnly, f[2]); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
		if f[1] != "portable" && !slices.Contains(variantNames(), f[1]) {
			return nil, fmt.Errorf("%s:%d: there is no variant %q", path, i+1, f[1])
		}
		out = append(out, Line{f[0], f[1], f[2], f[3], strings.Join(f[4:], " ")})
	}
	return out, nil
}
