// Command verify runs the tests of all kernels on this processor and writes into internal/kernel/VERIFIED which variants passed, on what, when.
//
//	go run ./internal/kernel/verify              runs the tests and replaces this processor's lines
//	go run ./internal/kernel/verify gemm tgemm   runs those of these packages alone (and backend/cpu's) and replaces their lines
//	go run ./internal/kernel/verify -check       says which kernels have changed since they were verified; runs nothing
//
// A variant is what a package has for one instruction set; which there are is read from the declarations of its assembly.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/kernel"
)

func main() {
	check := flag.Bool("check", false, "only say which kernels have changed since")
	flag.Parse()
	if err := run(*check, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(1)
	}
}

func run(check bool, packages []string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("run it inside the module: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "internal", "kernel")
	file := filepath.Join(dir, kernel.File)
	variants, err := kernel.Variants(dir)
	if err != nil {
		return err
	}
	have, err := kernel.ReadVerified(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if check {
		stale := 0
		for _, v := range variants {
			if !slices.ContainsFunc(have, func(l kernel.Line) bool { return l.Package == v.Package && l.Variant == v.Variant && l.Sum == v.Sum }) {
				fmt.Printf("%s %s has changed since it was verified\n", v.Package, v.Variant)
				stale++
			}
		}
		fmt.Printf("%d of %d variants have changed\n", stale, len(variants))
		return nil
	}
	for _, p := range packages {
		if !slices.ContainsFunc(variants, func(v kernel.Variant) bool { return v.Package == p }) {
			return fmt.Errorf("no kernels in a package %q", p)
		}
	}
	if len(packages) > 0 {
		variants = slices.DeleteFunc(variants, func(v kernel.Variant) bool { return !slices.Contains(packages, v.Package) })
	}
	args := []string{"test", "-count=1", "-timeout=1h", "./backend/cpu"} // and the packages with kernels, not the record's own test
	for _, v := range variants {
		if p := "./internal/kernel/" + v.Package; !slices.Contains(args, p) {
			args = append(args, p)
		}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = strings.TrimSpace(string(root)), os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the tests do not pass, nothing was written: %w", err)
	}
	cpu, date := isa.CPU()+" ("+strings.Join(isa.Features(), " ")+")", time.Now().UTC().Format(time.DateOnly)
	have = slices.DeleteFunc(have, func(l kernel.Line) bool {
		return l.CPU == cpu && (len(packages) == 0 || slices.Contains(packages, l.Package))
	})
	skipped := 0
	for _, v := range variants {
		if !kernel.Runs(v.Variant) {
			skipped++
			continue
		}
		have = append(have, kernel.Line{Package: v.Package, Variant: v.Variant, Date: date, Sum: v.Sum, CPU: cpu})
	}
	if err := atomicfile.WriteBytes(file, kernel.FormatVerified(have)); err != nil {
		return err
	}
	fmt.Printf("%s: %d variants verified on %s; %d need another processor\n", file, len(variants)-skipped, cpu, skipped)
	return nil
}
