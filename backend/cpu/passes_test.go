package cpu_test

import (
	"os"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend/cpu"
)

// The page about the passes has every one, in order.
func TestPassesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/guides/passes.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(page)
	for _, p := range cpu.Passes() {
		_, after, ok := strings.Cut(rest, "`"+p.Name+"`")
		if !ok {
			t.Fatalf("docs/guides/passes.md does not have %q, or not in its place", p.Name)
		}
		rest = after
	}
}
