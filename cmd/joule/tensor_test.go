//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// splitSpec has layers that two or three ranks can split.
const splitSpec = `name: small
data: {name: mnist, take: 990}
model:
  - Conv2D: {filters: 4, kernel_size: 3, activation: relu}
  - MaxPooling2D
  - BatchNormalization
  - Dropout: {rate: 0.2}
  - Flatten
  - Dense: {units: 96, activation: relu}
  - Dense: {units: 10, activation: softmax}
compile: {optimizer: {name: adamw, global_clipnorm: 1.0}, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
fit: {epochs: 4, batch_size: 32}
`

func splitDir(t *testing.T, more string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(splitSpec+more), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// saved is the model that a run has left.
func saved(t *testing.T, dir string) *checkpoint.State {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", modelFile))
	if len(files) != 1 {
		t.Fatalf("%d models in %s", len(files), dir)
	}
	s, err := checkpoint.Load(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nearly compares two models.
func nearly(a, b *checkpoint.State, tol float64) error {
	for _, x := range a.Tensors {
		y := b.Tensor(x.Name)
		if y == nil || !y.Shape().Equal(x.Value.Shape()) {
			return fmt.Errorf("%s: %v and %v", x.Name, x.Value.Shape(), y)
		}
		for i := range y.Len() {
			if d := math.Abs(x.Value.At(i) - y.At(i)); !(d <= tol) {
				return fmt.Errorf("%s[%d]: %v and %v", x.Name, i, x.Value.At(i), y.At(i))
			}
		}
	}
	return nil
}

// Layers split over the ranks of an MPI leave, up to rounding, what one process leaves, from the flag or the specification, and on through other numbers of ranks and another split; a rank has half of what is split, and the
// account has its messages and how long it waits for them.
func TestTensorOnRanks(t *testing.T) {
	m := mpitest.All(t)[0]
	one := splitDir(t, "")
	if out, err := joule(one, "train", "small.yaml", "--quiet", "--shards", "2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := saved(t, one)
	dir := splitDir(t, "")
	out, err := onRanks(m, 2, dir, "train", "small.yaml", "--json", "--epochs", "1", "--tensor", "2", "--check-weights", "10").Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, err.(*exec.ExitError).Stderr)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var r struct {
		ByRank   []rankReport `json:"by_rank"`
		Sent     int64        `json:"bytes_sent"`
		Accuracy float64      `json:"test_accuracy"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		t.Fatal(err)
	}
	// Whole: a filter, two normalisations' numbers and moments, and the last bias; of the pair, half of each matrix and of the first bias.
	whole, half := 4*(9*4+4+4*4+10), 2*(676*96+96+96*10)
	// Sums of ten numbers an example forward and backward in an epoch of 990, forward in a validation and a test of 10,000; and in 31 steps of the gradients and moments of what is whole.
	least := int64(4*10*(2*990+2*10000) + 31*whole)
	for i, k := range r.ByRank {
		if k.Params != whole+half || k.State < 2*half || k.State > 2*(whole+half)+8 || k.Sent < least || k.Sent > 2*least || k.Within <= 0 || k.Waiting < k.Within || k.Steps != 31 {
			t.Errorf("rank %d: %+v; %d bytes whole, %d in half, at least %d sent", i, k, whole, half, least)
		}
	}
	if len(r.ByRank) != 2 || r.Sent != r.ByRank[0].Sent+r.ByRank[1].Sent || r.Accuracy < 0.3 {
		t.Errorf("%s", lines[len(lines)-1])
	}

	// From the specification, through one process, two ranks that do not split, and four.
	dir = splitDir(t, "ranks: {tensor: 2, shards: 2}\n")
	for i, c := range []*exec.Cmd{
		onRanks(m, 2, dir, "train", "small.yaml", "--quiet", "--epochs", "1"),
		joule(dir, "train", "--resume", "last", "--quiet", "--epochs", "2"),
		onRanks(m, 2, dir, "train", "--resume", "last", "--quiet", "--epochs", "3", "--tensor", "1"),
		onRanks(m, 4, dir, "train", "--resume", "last", "--quiet", "--epochs", "4", "--tensor", "2"),
	} {
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%d: %v\n%s", i, err, out)
		}
	}
	const tol = 2e-3 // of Adam, for which a rounding of small gradients goes a long way
	if err := nearly(want, saved(t, dir), tol); err != nil {
		t.Error(err)
	}
	if out, err := onRanks(m, 2, dir, "train", "small.yaml", "--tensor", "3").CombinedOutput(); err == nil || !strings.Contains(string(out), "start a multiple of 3") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Ranks that split layers and are left when one is killed go on, split over as many as there are: three of four, or one of two alone.
func TestTensorSurvives(t *testing.T) {
	m := survivors(t)
	small := func(t *testing.T) string { return splitDir(t, "") }
	for _, k := range []struct {
		n    int
		dir  func(t *testing.T) string
		file string
		more []string
		tol  float64
	}{{4, small, "small.yaml", nil, 2e-3}, {2, small, "small.yaml", nil, 2e-3}, {4, wordsDir, "words.yaml", []string{"--zero", "1"}, 5e-3}} { // a vocabulary, of which three ranks have parts too
		one, n := k.dir(t), k.n
		if out, err := joule(one, "train", k.file, "--quiet", "--shards", "2").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		dir := k.dir(t)
		c := onRanks(m, n, dir, append([]string{"train", k.file, "--quiet", "--tensor", "2", "--shards", "2", "--checkpoint-every", "20ms"}, k.more...)...)
		out, ps := begun(t, c, dir, n)
		_ = syscall.Kill(ps[n-1], syscall.SIGKILL)
		done := time.AfterFunc(5*time.Minute, func() { _ = c.Process.Kill() })
		_ = c.Wait() // the launcher reports the rank that was killed
		if !done.Stop() {
			t.Fatalf("the job did not end\n%s", out)
		}
		if err := nearly(saved(t, one), saved(t, dir), k.tol); err != nil {
			t.Errorf("%d ranks, one of them killed: %v\n%s", n, err, out)
		}
		t.Logf("%d ranks: %s", n, out)
	}
}
