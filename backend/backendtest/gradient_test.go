package backendtest

import (
	"testing"

	"github.com/jouleml/joule/op"
)

func TestGradients(t *testing.T) {
	for _, o := range op.All() {
		Gradients(t, o)
	}
}

func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range op.All() {
		if seen[o.Name] {
			t.Errorf("two ops are named %s", o.Name)
		}
		seen[o.Name] = true
		if o.Ref == nil && o.Decompose == nil {
			t.Errorf("op %s has neither a reference nor a decomposition", o.Name)
		}
		if o.Decompose == nil && o.Why == "" {
			t.Errorf("primitive %s does not say why it cannot be composed", o.Name)
		}
		if o.Doc == "" {
			t.Errorf("op %s has no Doc", o.Name)
		}
	}
}
