package train

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/pass"
)

// Recompute lets the backward pass compute again what the forward pass computed inside of layers, instead of keeping it (arXiv:1604.06174): memory for arithmetic. The layers are those that
// match a pattern (see Matches), without patterns all Transformer blocks. Results are the same.
func Recompute(patterns ...string) Option {
	return option(func(m *Model) {
		m.recompute = patterns
		if len(patterns) == 0 {
			m.recompute = []string{}
		}
	})
}

// Recomputes reports whether the model was compiled with Recompute.
func (m *Model) Recomputes() bool { return m.recompute != nil }

// segments are the names of the layers whose inside is computed again.
func (m *Model) segments() map[string]bool {
	out := map[string]bool{}
	for _, l := range m.Net.Layers() {
		if len(m.recompute) == 0 && l.Class() == "TransformerBlock" || matchesAny(m.recompute, l.Name()) {
			out[l.Name()] = true
		}
	}
	return out
}

// checkRecompute reports patterns that match no layer.
func (m *Model) checkRecompute() error {
	if m.recompute == nil {
		return nil
	}
	var names []string
	for _, l := range m.Net.Layers() {
		names = append(names, l.Name())
	}
	if err := Unmatched("layer", m.recompute, names); err != nil {
		return fmt.Errorf("train: recompute: %w", err)
	}
	if len(m.recompute) == 0 && !slices.ContainsFunc(m.Net.Layers(), func(l *nn.Layer) bool { return l.Class() == "TransformerBlock" }) {
		return fmt.Errorf("train: recompute: the model has no Transformer blocks: name the layers whose inside is to be computed again; layers: %s", strings.Join(names, ", "))
	}
	return nil
}

// recomputing is the graph in which the backward pass computes segments again.
func (m *Model) recomputing(g *graph.Graph) (*graph.Graph, error) {
	in := m.segments()
	return pass.Checkpoint(g, func(scope string) string {
		if top, _, _ := strings.Cut(scope, "/"); in[top] {
			return top
		}
		return ""
	})
}

// StepMemory is the number of bytes that the program of a train step for a batch holds beside parameters and optimizer state.
func (m *Model) StepMemory(batch int) (int64, error) {
	p, err := m.programOf(programKey{mode: train, batch: batch})
	if err != nil {
		return 0, err
	}
	return p.exec.Memory(), nil
}
