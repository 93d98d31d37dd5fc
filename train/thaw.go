package train

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Which parameters are trained, and from when on: the first layers of a trained model hold what most tasks share, so they are frozen, or thawed later than the others (gradual unfreezing, arXiv:1801.06146).

// freezing is one step of the rules: the last that matches a parameter counts.
type freezing struct {
	pattern string
	frozen  bool
	from    int // thaw: the epoch, from 0, in which training begins
}

// Freeze leaves the parameters that match one of the patterns as they are. No gradients are computed for them, and batch normalisations among them use their moving averages.
func Freeze(patterns ...string) Option { return rules(patterns, true, 0) }

// Unfreeze trains the parameters that match one of the patterns, which an option before it has frozen.
func Unfreeze(patterns ...string) Option { return rules(patterns, false, 0) }

// Thaw trains the parameters that match one of the patterns, which an option before it has frozen, from an epoch on, counted from 1. Until then they cost no gradient. The optimizer counts their updates
// from there.
func Thaw(epoch int, patterns ...string) Option { return rules(patterns, false, epoch-1) }

func rules(patterns []string, frozen bool, from int) Option {
	return option(func(m *Model) {
		for _, p := range patterns {
			m.frozen = append(m.frozen, freezing{p, frozen, from})
		}
	})
}

// never is the epoch of parameters that stay as they are.
const never = math.MaxInt

// begins is the epoch, from 0, in which the training of a parameter begins.
func (m *Model) begins(param string) int {
	for i := len(m.frozen) - 1; i >= 0; i-- {
		if r := m.frozen[i]; Matches(r.pattern, param) {
			if r.frozen {
				return never
			}
			return r.from
		}
	}
	return 0
}

// isFrozen reports whether a parameter stays as it is in the current epoch.
func (m *Model) isFrozen(param string) bool { return m.begins(param) > m.epoch }

// Frozen reports whether a parameter stays as it is through the whole training.
func (m *Model) Frozen(param string) bool { return m.begins(param) == never }

// Thaws reports whether the training of some parameters begins later than that of others.
func (m *Model) Thaws() bool {
	return slices.ContainsFunc(m.frozen, func(r freezing) bool { return !r.frozen && r.from > 0 })
}

// stage is how many of the epochs in which parameters thaw have begun: programs of a step are made for each.
func (m *Model) stage() int {
	at := map[int]bool{}
	for _, r := range m.frozen {
		if !r.frozen && r.from > 0 && r.from <= m.epoch {
			at[r.from] = true
		}
	}
	return len(at)
}

// checkFrozen says what is wrong with the rules.
func (m *Model) checkFrozen(known func(what, pattern string) error) error {
	for _, r := range m.frozen {
		what := "freeze"
		if !r.frozen {
			what = "unfreeze"
		}
		if err := known(what, r.pattern); err != nil {
			return err
		}
		if r.from < 0 {
			return fmt.Errorf("train: thaw: epoch %d of %q must be at least 1", r.from+1, r.pattern)
		}
	}
	if p := m.parallel; m.Thaws() && m.sharing() && (p.Zero > 0 || p.Compress != nil || p.Local > 1 || p.Tensor > 1) {
		return errors.New("train: layers that thaw in the middle of a training do not go with state shared out (zero), compressed gradients, local steps or layers split over ranks, which keep state by gradient: train each stage as a run of its own that takes over the weights of the last")
	}
	for _, p := range m.params {
		if m.begins(p.Name) == 0 {
			return nil
		}
	}
	if len(m.params) > 0 && m.Thaws() {
		return errors.New("train: thaw: no parameter is trained in the first epoch: leave some unfrozen, such as those of the head")
	}
	return nil
}

// since names the counter of a parameter's updates: "" for those that are trained from the first epoch on.
func (m *Model) since(param string) string {
	if n := m.begins(param); n > 0 && n != never {
		return fmt.Sprintf("epoch%d", n+1)
	}
	return ""
}

// FrozenPart names, for people, what stays as it is: "14 of 103 parameters".
func (m *Model) FrozenPart() string {
	n := 0
	var later []string
	for _, p := range m.params {
		switch b := m.begins(p.Name); {
		case b == never:
			n++
		case b > 0 && !slices.Contains(later, fmt.Sprint(b+1)):
			later = append(later, fmt.Sprint(b+1))
		}
	}
	if n == 0 && later == nil {
		return ""
	}
	out := fmt.Sprintf("%d of %d parameters stay as they are", n, len(m.params))
	if later != nil {
		out += "; others are trained from epoch " + strings.Join(later, ", ") + " on"
	}
	return out
}

// rulesFor are the rules for another model that has some of this one's parameters.
func (m *Model) rulesFor(params []string) []freezing {
	return slices.DeleteFunc(slices.Clone(m.frozen), func(r freezing) bool {
		return !slices.ContainsFunc(params, func(n string) bool { return Matches(r.pattern, n) })
	})
}
