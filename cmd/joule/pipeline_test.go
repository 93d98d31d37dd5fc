//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// Stages under an MPI leave one whole run with the bits of one process, through a kill and on other numbers of ranks; a rank that hangs is named.
func TestPipelineOnRanks(t *testing.T) {
	m := mpitest.All(t)[0]
	const shards = "4"
	want := undisturbed(t, shards)
	dir := ranksDir(t)
	out, err := onRanks(m, 2, dir, "train", "small.yaml", "--json", "--pipeline", "2", "--cuts", "batch_normalization", "--shards", shards, "--timeline", "timeline.json").Output()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, err.(*exec.ExitError).Stderr)
	}
	if finalBits(t, dir) != want {
		t.Error("other bits than one process")
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	var r struct {
		ByRank   []rankReport `json:"by_rank"`
		Accuracy float64      `json:"test_accuracy"`
	}
	if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
		t.Fatal(err)
	}
	// The first stage hands over 13·13·8 numbers for each example, and their gradients come back: 3 epochs of 1990, and three validations and a test of 10,000 forward.
	values := int64(4 * 13 * 13 * 8)
	if least := values * (3*1990 + 4*10000); len(r.ByRank) != 2 || r.ByRank[0].Sent < least || r.ByRank[0].Sent > least+least/10 || r.ByRank[1].Sent < 3*1990*values || r.ByRank[0].Bubble <= 0 || r.ByRank[0].Steps != 189 || r.Accuracy < 0.5 {
		t.Errorf("%s", lines[len(lines)-1])
	}
	if text, err := os.ReadFile(filepath.Join(dir, "timeline.json")); err != nil || !bytes.Contains(text, []byte(`"backward 3"`)) || !bytes.Contains(text, []byte(`"forward and backward 3"`)) {
		t.Errorf("timeline: %v", err)
	}

	// From the specification; a rank is killed, one process goes on, and then two again.
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(ranksSpec+"ranks: {pipeline: 2, shards: "+shards+"}\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	c := onRanks(m, 2, dir, "train", "small.yaml", "--checkpoint-every", "20ms")
	_, ps := begun(t, c, dir, 2)
	_ = syscall.Kill(ps[1], syscall.SIGKILL)
	if err := c.Wait(); err == nil {
		t.Log("the training was over before the kill")
	} else {
		if out, err := joule(dir, "train", "--resume", "last", "--quiet", "--epochs", "2").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out, err := onRanks(m, 2, dir, "train", "--resume", "last", "--quiet", "--epochs", "3").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if finalBits(t, dir) != want {
		t.Error("other bits after a kill")
	}

	dir = ranksDir(t)
	c = onRanks(m, 2, dir, "train", "small.yaml", "--pipeline", "2", "--epochs", "10000", "--deadline", "5s")
	text, ps := begun(t, c, dir, 2)
	_ = syscall.Kill(ps[1], syscall.SIGSTOP)
	err = c.Wait()
	_ = syscall.Kill(ps[1], syscall.SIGKILL) // if the launcher has left it
	if err == nil || !strings.Contains(text.String(), "no sign of rank") {
		t.Errorf("%v\n%s", err, text)
	}
}

// What does not go with stages is said, with the flag.
func TestPipelineFlags(t *testing.T) {
	dir := ranksDir(t)
	for flags, want := range map[string]string{"--pipeline -2": "--pipeline -2", "--cuts flatten": "--pipeline says how many"} {
		if out, err := joule(dir, append([]string{"train", "small.yaml"}, strings.Fields(flags)...)...).CombinedOutput(); err == nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: %v\n%s", flags, err, out)
		}
	}
	m := mpitest.All(t)[0]
	for flags, want := range map[string]string{"--pipeline 2 --zero 1": "(--zero 1)", "--pipeline 3": "multiple of 3", "--pipeline 2 --cuts nothing": "layers: conv2d"} {
		if out, err := onRanks(m, 2, dir, append([]string{"train", "small.yaml"}, strings.Fields(flags)...)...).CombinedOutput(); err == nil || !bytes.Contains(out, []byte(want)) {
			t.Errorf("%s: %v\n%s", flags, err, out)
		}
	}
}
