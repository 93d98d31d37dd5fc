//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// ranksSpec has a last batch that does not divide, random layers and moving averages.
const ranksSpec = `name: small
data: {name: mnist, take: 1990}
model:
  - Conv2D: {filters: 8, kernel_size: 3, activation: relu}
  - MaxPooling2D
  - BatchNormalization
  - Dropout: {rate: 0.2}
  - Flatten
  - Dense: {units: 10, activation: softmax}
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
fit: {epochs: 3, batch_size: 32}
`

// onRanks is the command on n ranks.
func onRanks(m mpitest.MPI, n int, dir string, args ...string) *exec.Cmd {
	c := m.Command(strconv.Itoa(n), []string{"JOULE_TEST_COMMAND=1"}, os.Args[0], args...)
	c.Dir = dir
	return c
}

func ranksDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(ranksSpec), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// undisturbed is the bits of a training in one process.
func undisturbed(t *testing.T, shards string) string {
	t.Helper()
	dir := ranksDir(t)
	if out, err := joule(dir, "train", "small.yaml", "--quiet", "--shards", shards).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return finalBits(t, dir)
}

// Under every MPI the ranks leave one run with the bits of one process, and an account of each rank.
func TestTrainOnRanks(t *testing.T) {
	all := mpitest.All(t)
	want := undisturbed(t, "2")
	for i, m := range all {
		dir := ranksDir(t)
		c := onRanks(m, 2, dir, "train", "small.yaml", "--json", "--timeline", "timeline.json", "--check-weights", "7")
		sum := `"sum"`
		if i == 0 { // by messages, the others in memory that both see
			c.Env = append(c.Env, "JOULE_DEBUG=ranks=messages")
			sum = `"bucket 0"`
		}
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s\n%s", m.Name, err, out, err.(*exec.ExitError).Stderr)
		}
		if finalBits(t, dir) != want {
			t.Errorf("%s: other bits than one process", m.Name)
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		if len(lines) != 4 { // three epochs and the result, printed once
			t.Fatalf("%s: %d lines\n%s", m.Name, len(lines), out)
		}
		var r struct {
			Ranks    int
			Sent     float64      `json:"bytes_sent"`
			ByRank   []rankReport `json:"by_rank"`
			Accuracy float64      `json:"test_accuracy"`
			FLOPs    int64
		}
		if err := json.Unmarshal(lines[3], &r); err != nil {
			t.Fatal(err)
		}
		// Each rank sends its half of every sum: 13,642 numbers and some, 189 steps.
		if least := 2 * 189 * 4 * 13642.0 * 2 / 2; r.Ranks != 2 || len(r.ByRank) != 2 || r.Sent < least || r.Sent > 1.5*least || r.Accuracy < 0.5 || r.ByRank[0].FLOPs+r.ByRank[1].FLOPs != r.FLOPs || r.ByRank[1].Steps != 189 {
			t.Errorf("%s: %s", m.Name, lines[3])
		}
		text, err := os.ReadFile(filepath.Join(dir, "timeline.json"))
		if err != nil || !bytes.Contains(text, []byte(sum)) || !bytes.Contains(text, []byte(`"pid":1`)) {
			t.Errorf("%s: timeline: %v", m.Name, err)
		}
		// Evaluation shared out gives what one process gives.
		one, err := joule(dir, "eval", "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		two, err := onRanks(m, 2, dir, "eval", "--json").Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", m.Name, err, err.(*exec.ExitError).Stderr)
		}
		var a, b map[string]any
		if err := json.Unmarshal(one, &a); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(two, &b); err != nil {
			t.Fatalf("%v: %s", err, two)
		}
		if a["loss"] != b["loss"] || a["accuracy"] != b["accuracy"] || a["loss"] == nil {
			t.Errorf("%s: eval on one rank %s, on two %s", m.Name, one, two)
		}
	}
}

// Frozen layers that say once what examples are, and layers that thaw, leave ranks with the bits of one process; what the files cost is booked once, and read again they cost nothing.
func TestTransferOnRanks(t *testing.T) {
	m := mpitest.All(t)[0]
	first := ranksDir(t)
	if out, err := joule(first, "train", "small.yaml", "--quiet", "--epochs", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	models, _ := filepath.Glob(filepath.Join(first, "runs", "*", modelFile))
	if len(models) != 1 {
		t.Fatalf("%d models", len(models))
	}
	for _, how := range []string{"freeze: [conv2d, batch_normalization], cache: true", "freeze: [conv2d, batch_normalization], thaw: {2: [conv2d], 3: [batch_normalization]}"} {
		text := ranksSpec + "transfer: {from: " + models[0] + ", " + how + "}\n"
		train := func(c func(dir string, args ...string) *exec.Cmd, args ...string) (string, string) {
			t.Helper()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
			out, err := c(dir, append([]string{"train", "small.yaml"}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v\n%s", how, err, out)
			}
			return finalBits(t, dir), string(out)
		}
		t.Setenv("JOULE_DATA_DIR", t.TempDir())
		two := func(dir string, args ...string) *exec.Cmd { return onRanks(m, 2, dir, args...) }
		a, said := train(two)
		cached := strings.Contains(how, "cache")
		if strings.Count(said, "the frozen layers said once") != map[bool]int{true: 1}[cached] {
			t.Errorf("%s:\n%s", how, said)
		}
		b, said := train(joule, "--shards", "2")
		if a != b {
			t.Errorf("%s: other bits on two ranks than on one", how)
		}
		if strings.Contains(said, "was read from") != cached {
			t.Errorf("%s:\n%s", how, said)
		}
	}
}

// textsSpec reads and writes texts of several lengths.
const textsSpec = `name: texts
data: pairs:pairs.tsv?vocabulary=300&source=24&target=24
model:
  - Embedding: {name: tokens, inputs: [source], input_dim: classes, output_dim: 16}
  - TransformerBlock: {name: reader, inputs: [tokens, source_length], num_heads: 2}
  - Reuse: {layer: tokens, inputs: [target]}
  - PositionEmbedding: {name: places, sequence_length: 24}
  - TransformerBlock: {name: writer, inputs: [places, reader, source_length], num_heads: 2, causal: true}
  - Dense: {units: classes, activation: softmax}
compile: {optimizer: adam, loss: {name: sparse_categorical_crossentropy, ignore: -1}}
fit: {epochs: 2, batch_size: 8}
`

// Texts, whose batches have several lengths, are shared out, and what a teacher writes about them is written once: the bits are those of one process.
func TestTextsOnRanks(t *testing.T) {
	m := mpitest.All(t)[0]
	words := []string{"eins", "zwei", "drei", "vier", "acht"}
	var pairs strings.Builder
	for i := range 90 {
		var a, b []string
		for j := range 1 + i%9 {
			a, b = append(a, []string{"one", "two", "three", "four", "eight"}[(i*i+j)%5]), append(b, words[(i*i+j)%5])
		}
		fmt.Fprintf(&pairs, "%s\t%s\n", strings.Join(a, " "), strings.Join(b, " "))
	}
	train := func(c func(dir string, args ...string) *exec.Cmd, text string, args ...string) (dir, said string) {
		t.Helper()
		dir = t.TempDir()
		for name, text := range map[string]string{"texts.yaml": text, "pairs.tsv": pairs.String()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		out, err := c(dir, append([]string{"train", "texts.yaml"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return dir, string(out)
	}
	t.Setenv("JOULE_DATA_DIR", t.TempDir())
	two := func(dir string, args ...string) *exec.Cmd { return onRanks(m, 2, dir, args...) }
	teacher, _ := train(joule, textsSpec, "--shards", "2")
	if dir, _ := train(two, textsSpec); finalBits(t, dir) != finalBits(t, teacher) {
		t.Error("other bits on two ranks than on one")
	}
	models, _ := filepath.Glob(filepath.Join(teacher, "runs", "*", modelFile))
	taught := textsSpec + "distil: {teacher: " + models[0] + ", texts: both, beams: 2}\n"
	a, said := train(two, taught)
	if strings.Count(said, "the teacher wrote once about") != 1 {
		t.Error(said)
	}
	b, said := train(joule, taught, "--shards", "2")
	if !strings.Contains(said, "was read from") {
		t.Error(said)
	}
	if finalBits(t, a) != finalBits(t, b) {
		t.Error("taught by a teacher's texts, other bits on two ranks than on one")
	}
}

// What is for slow links goes through the command, and a resumed run keeps it: bytes show it.
func TestSlowLinkFlags(t *testing.T) {
	m := mpitest.All(t)[0]
	sent := func(dir string, args ...string) float64 {
		out, err := onRanks(m, 2, dir, append([]string{"train", "--json"}, args...)...).Output()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, err.(*exec.ExitError).Stderr)
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		var r struct {
			Sent float64 `json:"bytes_sent"`
		}
		if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
			t.Fatal(err)
		}
		return r.Sent
	}
	plain := sent(ranksDir(t), "small.yaml", "--epochs", "1")
	for _, flags := range [][]string{{"--compress", "topk:0.01"}, {"--local-steps", "21", "--outer-momentum", "0.5"}} {
		dir := ranksDir(t)
		first := sent(dir, append([]string{"small.yaml", "--epochs", "1"}, flags...)...)
		again := sent(dir, "--resume", "last", "--epochs", "2")
		if first > 0.6*plain || again > 0.6*plain {
			t.Errorf("%v: %.0f bytes, resumed %.0f, plain %.0f", flags, first, again, plain)
		}
	}
	dir := ranksDir(t) // shared state leaves the bits and the checkpoints of whole state
	sent(dir, "small.yaml", "--epochs", "1", "--zero", "2")
	sent(dir, "--resume", "last", "--epochs", "3")
	if finalBits(t, dir) != undisturbed(t, "2") {
		t.Error("--zero 2: other bits than one process")
	}
	dir = t.TempDir() // the same from the specification
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(ranksSpec+"ranks: {compress: \"topk:0.01\"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if got := sent(dir, "small.yaml", "--epochs", "1"); got > 0.6*plain {
		t.Errorf("from the specification: %.0f bytes, plain %.0f", got, plain)
	}
	if out, err := joule(t.TempDir(), "train", "--compress", "zip").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("powersgd:RANK")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// begun starts a training on n ranks and waits for its first checkpoint: what it prints, and its processes.
func begun(t *testing.T, c *exec.Cmd, dir string, n int) (out *bytes.Buffer, ps []int) {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc to find the ranks")
	}
	out = &bytes.Buffer{}
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for range 12000 { // a loaded machine takes its time
		if files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", "checkpoints", "*.safetensors")); len(files) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if ps = processes(c.Process.Pid); len(ps) != n {
		for _, p := range append(ps, c.Process.Pid) {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		_ = c.Wait()
		t.Fatalf("%v: %d processes of %d ranks\n%s", c.Args, len(ps), n, out)
	}
	return out, ps
}

// processes are the descendants of a process that run this program.
func processes(parent int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	children := map[int][]int{}
	for _, f := range stats {
		text, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) > 1 {
			ppid, _ := strconv.Atoi(fields[1])
			children[ppid] = append(children[ppid], pid)
		}
	}
	self, _ := os.Readlink("/proc/self/exe")
	var out []int
	var walk func(p int)
	walk = func(p int) {
		for _, c := range children[p] {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", c)); exe == self {
				out = append(out, c)
			}
			walk(c)
		}
	}
	walk(parent)
	return out
}

// moments are random, and others with another JOULE_TEST_SEED.
func moments(n uint64) *rand.Rand {
	seed, _ := strconv.ParseUint(os.Getenv("JOULE_TEST_SEED"), 10, 64)
	return rand.New(rand.NewPCG(n, seed))
}

// A rank killed at any moment ends the job; resumed on other numbers of ranks, time and again, the training ends with the bits of one that was left alone; every other training, and that of every other MPI, is begun with pipeline stages, which are cut
// anew for other numbers. JOULE_TEST_KILLS sets how often (default 4 for each MPI).
func TestKilledRanks(t *testing.T) {
	all := mpitest.All(t)
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc to find the ranks")
	}
	times := 4
	if n, err := strconv.Atoi(os.Getenv("JOULE_TEST_KILLS")); err == nil {
		times = n
	}
	want := undisturbed(t, "4")
	r := moments(1)
	for i, m := range all {
		kills, trainings := 0, 0
		for kills < times {
			dir := ranksDir(t)
			args := []string{"train", "small.yaml", "--quiet", "--shards", "4", "--checkpoint-every", "20ms"}
			staged := (trainings+i)%2 == 1
			if staged {
				args = append(args, "--pipeline", "2")
			}
			for attempt := 0; ; attempt++ {
				n := []int{2, 3, 1, 4}[attempt%4]
				if staged && args[1] == "small.yaml" { // the settings of the command line are for this number; a run that goes on takes any
					n = 2
				}
				c := onRanks(m, n, dir, args...)
				var out bytes.Buffer
				c.Stdout, c.Stderr = &out, &out
				if err := c.Start(); err != nil {
					t.Fatal(err)
				}
				killed := make(chan bool, 1)
				go func() {
					if kills >= times {
						killed <- false
						return
					}
					var ps []int
					for range 12000 { // until the ranks are there, on a loaded machine too
						if ps = processes(c.Process.Pid); len(ps) == n {
							break
						}
						time.Sleep(5 * time.Millisecond)
					}
					time.Sleep(time.Duration(100+r.IntN(900)) * time.Millisecond)
					if len(ps) == 0 {
						killed <- false
						return
					}
					killed <- syscall.Kill(ps[r.IntN(len(ps))], syscall.SIGKILL) == nil
				}()
				err := c.Wait()
				hit := <-killed
				if err == nil {
					break
				}
				if !hit {
					t.Fatalf("%s: nobody was killed, but %v\n%s", m.Name, err, out.String())
				}
				kills++
				if found, _ := filepath.Glob(filepath.Join(dir, "runs", "*", "checkpoints", "*.safetensors")); len(found) > 0 {
					args = []string{"train", "--resume", "last", "--quiet", "--checkpoint-every", "20ms"}
				} else if err := os.RemoveAll(filepath.Join(dir, "runs")); err != nil {
					t.Fatal(err)
				}
			}
			trainings++
			if finalBits(t, dir) != want {
				t.Fatalf("%s: after %d kills other bits than the undisturbed training", m.Name, kills)
			}
		}
		t.Logf("%s: %d kills, %d trainings, each with the bits of the undisturbed one", m.Name, kills, trainings)
	}
}

// A rank that stops is named when the deadline has passed, and the job ends.
func TestStoppedRank(t *testing.T) {
	for _, m := range mpitest.All(t) {
		dir := ranksDir(t)
		c := onRanks(m, 3, dir, "train", "small.yaml", "--epochs", "10000", "--deadline", "5s")
		out, ps := begun(t, c, dir, 3)
		if err := syscall.Kill(ps[1], syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		err := c.Wait()
		_ = syscall.Kill(ps[1], syscall.SIGKILL) // if the launcher has left it
		if err == nil || !strings.Contains(out.String(), "no sign of rank") || strings.Contains(out.String(), "no sign of ranks") {
			t.Errorf("%s: %v\n%s", m.Name, err, out.String())
		}
	}
}

// An interrupted job stops at one step on all ranks and goes on.
func TestInterruptedRanks(t *testing.T) {
	for _, m := range mpitest.All(t) {
		dir := ranksDir(t)
		c := onRanks(m, 2, dir, "train", "small.yaml", "--epochs", "10000", "--checkpoint-every", "1h")
		out, ps := begun(t, c, dir, 2)
		for _, p := range ps[1:] { // one rank is enough
			_ = syscall.Kill(p, syscall.SIGINT)
		}
		if err := c.Wait(); err == nil || !strings.Contains(out.String(), "interrupted; go on with") {
			t.Errorf("%s: %v\n%s", m.Name, err, out.String())
		}
	}
}
