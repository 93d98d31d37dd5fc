package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// What happens where the number of processes is not the one that settings were made for: one process alone, or fewer ranks than there were.

// fit makes the settings fit the number of ranks that are there, and says what that means (note; "": nothing). A model applies so many layers. given says that the settings stand on the command line,
// where they mean this very job: what cannot be done is an error then. Those of a specification or of a run that goes on say how it is shared where there are ranks.
func (f *rankFlags) fit(ranks, layers int, given bool) (note string, err error) {
	f.asked = f.slow
	given = given && !f.lost
	if ranks == 1 {
		return f.alone(given)
	}
	if given {
		return "", nil // package train says what does not fit
	}
	if p := f.stages(ranks, layers); p != f.Pipeline {
		note = fmt.Sprintf("%d ranks are no multiple of %d pipeline stages: the layers are cut into %d, which leaves the bits as they are", ranks, f.Pipeline, p)
		if p == 1 {
			note = fmt.Sprintf("%d ranks are no multiple of %d pipeline stages, and %d layers cannot be cut into more: each rank has the whole model, which leaves the bits as they are", ranks, f.Pipeline, layers)
		}
		f.Pipeline, f.Cuts = p, ""
	}
	if t := f.split(ranks); t != f.Tensor {
		note = fmt.Sprintf("%d ranks are no multiple of the %d that split layers: %d do, and weights are equal to those up to rounding", ranks, f.Tensor, t)
		f.Tensor = t
	}
	return note, nil
}

// stages is how many pipeline stages so many ranks make in place of those that are asked for: the same if they divide the ranks, else the next greater number that does, since a stage must fit into a rank's memory; where the
// model has too few layers for that, the next smaller.
func (f *rankFlags) stages(ranks, layers int) int {
	p := f.Pipeline
	if p <= 1 || ranks == 1 || ranks%p == 0 {
		return p
	}
	for k := p + 1; k <= min(ranks, layers); k++ {
		if ranks%k == 0 {
			return k
		}
	}
	return divisor(ranks, p-1)
}

// split is how many ranks split layers in place of those that are asked for: the same if they divide the ranks, else the greatest number that divides both, since what could be shared out before can be so still; if none does, the
// next greater, since a part must fit into a rank's memory.
func (f *rankFlags) split(ranks int) int {
	t := f.Tensor
	if t <= 1 || ranks == 1 || ranks%t == 0 {
		return t
	}
	for k := t / 2; k > 1; k-- {
		if t%k == 0 && ranks%k == 0 {
			return k
		}
	}
	for t++; ranks%min(t, ranks) != 0; t++ {
	}
	return min(t, ranks)
}

// divisor is the greatest number up to most that divides n.
func divisor(n, most int) int {
	for k := min(n, most); k > 1; k-- {
		if n%k == 0 {
			return k
		}
	}
	return 1
}

// alone says what settings that share a training out over ranks mean for one process.
func (f *rankFlags) alone(given bool) (note string, err error) {
	const (
		same = iota
		rounding
		other
	)
	var flags, keys []string
	least, worst := 2, same
	add := func(on bool, flag, key string, effect, ranks int) {
		if on {
			flags, keys = append(flags, flag), append(keys, key)
			least, worst = max(least, ranks), max(worst, effect)
		}
	}
	pieces := map[bool]int{true: same, false: rounding}[f.shards > 1]
	add(f.Pipeline > 1, fmt.Sprintf("--pipeline %d", f.Pipeline), fmt.Sprintf("pipeline: %d", f.Pipeline), pieces, f.Pipeline)
	add(f.Tensor > 1, fmt.Sprintf("--tensor %d", f.Tensor), fmt.Sprintf("tensor: %d", f.Tensor), rounding, f.Tensor)
	add(f.Zero > 0, fmt.Sprintf("--zero %d", f.Zero), fmt.Sprintf("zero: %d", f.Zero), same, 2)
	add(f.Local > 1, fmt.Sprintf("--local-steps %d", f.Local), fmt.Sprintf("local_steps: %d", f.Local), other, 2)
	add(f.Compress != "", "--compress "+f.Compress, "compress: "+f.Compress, other, 2)
	add(f.SyncNorm, "--sync-batch-norm", "sync_batch_norm: true", map[bool]int{true: other, false: rounding}[f.shards > 1], 2)
	if len(flags) == 0 || f.lost { // of survivors it has been said that they are fewer
		f.Tensor = 0
		return "", nil
	}
	start := fmt.Sprintf("mpirun --bind-to none -n %d joule %s", least, strings.Join(os.Args[1:], " "))
	if given && slices.ContainsFunc(flags, func(s string) bool { return !strings.HasPrefix(s, "--zero") }) {
		return "", usageError{fmt.Errorf("%s: for several processes, and this is one; start them with: %s (docs/distributed.md), or leave it out", strings.Join(flags, " "), start)}
	}
	names := strings.Join(flags, " ")
	if !given {
		names = "ranks: {" + strings.Join(keys, ", ") + "}"
	}
	f.Tensor = 0
	means := [...]string{"the bits are those of several", "weights are equal to those of several up to rounding", "several make another training of it"}[worst]
	return fmt.Sprintf("%s: for several processes; this one trains the whole model alone, and %s. To start several: %s", names, means, start), nil
}
