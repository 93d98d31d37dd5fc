package joule_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"
)

// withoutExample are the packages that need none, with the reason.
var withoutExample = map[string]string{
	"bench":               "serves joule bench alone",
	"deploy":              "files that are tested, no Go to call",
	"dist/mpi/mpitest":    "for the tests of ranks: finds the launchers of this machine",
	"backend/backendtest": "for the tests of backends; backend/cpu's use it",
}

// Every package that a user may import has an Example, which the tests run.
func TestEveryPackageHasAnExample(t *testing.T) {
	listed := map[string]bool{}
	for _, line := range packages(t, "{{.Name}} {{.ImportPath}} {{.Dir}}") {
		f := strings.SplitN(line, " ", 3)
		pkg := strings.TrimPrefix(f[1]+"/", module)
		pkg = strings.TrimSuffix(pkg, "/")
		if f[0] == "main" || pkg == "" || strings.Contains("/"+pkg+"/", "/internal/") {
			continue
		}
		listed[pkg] = true
		files, err := filepath.Glob(filepath.Join(f[2], "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		has := false
		for _, file := range files {
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range tree.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && strings.HasPrefix(fn.Name.Name, "Example") {
					has = true
				}
			}
		}
		switch reason := withoutExample[pkg]; {
		case !has && reason == "":
			t.Errorf("package %s has no Example: write a short one into its example_test.go", pkg)
		case has && reason != "":
			t.Errorf("package %s has an Example: take it off the list", pkg)
		}
	}
	for pkg := range withoutExample {
		if !listed[pkg] {
			t.Errorf("the list names %s, which is not there", pkg)
		}
	}
}
