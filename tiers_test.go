package joule_test

import (
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/jouleml/joule/"

// tiers lists the packages from the lowest tier to the highest: a package imports from its own tier and from lower ones only. A pattern that ends in /... takes
// a whole tree.
var tiers = [][]string{
	{"dtype", "shape", "internal/debug", "internal/allocs", "internal/isa", "internal/par", "internal/atomicfile", "internal/nearest", "internal/dl", "internal/rss", "internal/trace", "internal/race"},
	{"tensor", "energy/...", "internal/kernel/...", "internal/peak", "internal/pjrt"},
	{"stablehlo"},
	{"graph", "dist/..."},
	{"op"},
	{"grad", "cost"},
	{"backend"},
	{"backend/ref"},
	{"pass"},
	{"backend/cpu", "backend/xla", "backend/backendtest", "format/...", "text/..."},
	{"data/..."},
	{"nn"},
	{"optim", "checkpoint"},
	{"train/..."},
	{"transfer"},
	{"compress/..."},
	{"spec"},
	{"generate"},
	{"report"},
	{"bench", "cmd/joule", "examples/...", "deploy", "internal/kernel/verify"},
}

func tierOf(pkg string) int {
	best, length := -1, -1
	for i, t := range tiers {
		for _, p := range t {
			tree, isTree := strings.CutSuffix(p, "/...")
			if pkg == p || isTree && (pkg == tree || strings.HasPrefix(pkg, tree+"/")) {
				if len(p) > length {
					best, length = i, len(p)
				}
			}
		}
	}
	return best
}

// packages lists the packages of the module, one a line as the format of go list says.
func packages(t *testing.T, format string) []string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", format, "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// A lower tier never imports a higher one, and nothing but the command and the benchmarks imports cobra, SQLite or a terminal.
func TestTiers(t *testing.T) {
	for _, line := range packages(t, "{{.ImportPath}} {{join .Imports \" \"}}") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module)
		if pkg == strings.TrimSuffix(module, "/") {
			continue
		}
		own := tierOf(pkg)
		if own < 0 {
			t.Errorf("package %s has no tier: give it one in tiers_test.go", pkg)
			continue
		}
		for _, imp := range words[1:] {
			if dep, ok := strings.CutPrefix(imp, module); ok {
				if d := tierOf(dep); d > own {
					t.Errorf("%s (tier %d) imports %s (tier %d)", pkg, own, dep, d)
				}
			}
			if strings.HasPrefix(imp, "github.com/spf13/") && path.Dir(pkg) != "cmd" {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}
