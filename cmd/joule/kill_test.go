package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dist/mpi"
)

const killSpec = `name: small
data: {name: mnist, take: 6000}
model:
  - Conv2D: {filters: 8, kernel_size: 3, activation: relu}
  - MaxPooling2D
  - Dropout: {rate: 0.2}
  - Flatten
  - Dense: {units: 10, activation: softmax}
compile: {optimizer: adam, loss: sparse_categorical_crossentropy, metrics: [accuracy]}
fit: {epochs: 4, batch_size: 32}
`

// joule runs the command in a process of its own.
func joule(dir string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "JOULE_TEST_COMMAND=1")
	return c
}

func init() {
	if os.Getenv("JOULE_TEST_COMMAND") != "" {
		mpi.Exit(run())
	}
}

func finalBits(t *testing.T, dir string) string {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", modelFile))
	if len(files) != 1 {
		t.Fatalf("%d models in %s", len(files), dir)
	}
	s, err := checkpoint.Load(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, x := range s.Tensors {
		b.WriteString(x.Name)
		b.Write(x.Value.Bytes())
	}
	return b.String()
}

// Killed again and again at any moment and resumed each time, a training ends with the bits of one that was left alone; interrupted it says how to go on.
func TestKillAndResume(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many processes")
	}
	whole := t.TempDir()
	if err := os.WriteFile(filepath.Join(whole, "small.yaml"), []byte(killSpec), 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := joule(whole, "train", "small.yaml", "--quiet").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := finalBits(t, whole)

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "small.yaml"), []byte(killSpec), 0o666); err != nil {
		t.Fatal(err)
	}
	args := []string{"train", "small.yaml", "--quiet", "--checkpoint-every", "15ms"}
	kills := 0
	for i := 0; ; i++ {
		if i > 60 {
			t.Fatal("the training does not come to an end")
		}
		c := joule(dir, args...)
		var out strings.Builder
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		sig := syscall.SIGKILL
		if i%3 == 2 {
			sig = syscall.SIGINT
		}
		// A busy machine may take longer than that to its first checkpoint: later rounds last longer.
		timer := time.AfterFunc(time.Duration(60+i*37%140)*time.Duration(1<<(i/8))*time.Millisecond, func() { _ = c.Process.Signal(sig) })
		err := c.Wait()
		timer.Stop()
		if err == nil {
			break
		}
		kills++
		if c.ProcessState.ExitCode() == exitInterrupted && !strings.Contains(out.String(), "--resume") {
			t.Fatalf("interrupted, it does not say how to go on:\n%s", out.String())
		}
		if code := c.ProcessState.ExitCode(); code != exitInterrupted && code != -1 && !strings.Contains(out.String(), "no usable checkpoint") {
			t.Fatalf("exit code %d:\n%s", code, out.String())
		}
		if found, _ := filepath.Glob(filepath.Join(dir, "runs", "*", "checkpoints", "*.safetensors")); len(found) > 0 {
			args = []string{"train", "--resume", "last", "--quiet", "--checkpoint-every", "15ms"}
		} else { // killed before the first checkpoint: begin again
			if err := os.RemoveAll(filepath.Join(dir, "runs")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if kills == 0 {
		t.Fatal("the training was never killed: make it longer")
	}
	t.Logf("%d times killed or interrupted", kills)
	if finalBits(t, dir) != want {
		t.Fatal("other bits than the undisturbed training")
	}
}
