//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// Under an MPI with ULFM the ranks that are left when one is killed, whichever it is and whenever, go on from the last checkpoint by themselves and end with the bits of an undisturbed training.
// JOULE_TEST_SURVIVALS sets how often (default 3).
func TestSurvivingRanks(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc to find the ranks")
	}
	var m mpitest.MPI
	found := false
	for _, x := range mpitest.All(t) {
		if s, ok := x.Survives(); ok {
			m, found = s, true
		}
	}
	if !found {
		t.Skip("needs Open MPI 5: name its bin folder in " + mpitest.Variable)
	}
	times := 3
	if n, err := strconv.Atoi(os.Getenv("JOULE_TEST_SURVIVALS")); err == nil {
		times = n
	}
	want := undisturbed(t, "3")
	const hang = 5 * time.Minute // a job takes two seconds, on a machine that stops it for others much longer
	r := moments(5)
	recovered := 0
	for kill := range times {
		dir := ranksDir(t)
		c := onRanks(m, 3, dir, "train", "small.yaml", "--quiet", "--checkpoint-every", "20ms")
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var ps []int
		for range 2000 { // until the training has begun
			if files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", "checkpoints", "*.safetensors")); len(files) > 0 {
				ps = processes(c.Process.Pid)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if len(ps) != 3 {
			_ = c.Process.Kill()
			t.Fatalf("%d ranks\n%s", len(ps), out.String())
		}
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
		_ = syscall.Kill(ps[kill%3], syscall.SIGKILL)
		done := time.AfterFunc(hang, func() { // with what each goroutine was at
			for _, p := range processes(c.Process.Pid) {
				_ = syscall.Kill(p, syscall.SIGQUIT)
			}
			time.Sleep(2 * time.Second)
			_ = c.Process.Kill()
		})
		_ = c.Wait() // the launcher reports the rank that was killed
		if !done.Stop() {
			t.Fatalf("after kill %d the job did not end within %v\n%s", kill+1, hang, out.String())
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", modelFile)); len(files) != 1 {
			t.Fatalf("after kill %d the training did not come to its end\n%s", kill+1, out.String())
		}
		if finalBits(t, dir) != want {
			t.Fatalf("after kill %d other bits than undisturbed\n%s", kill+1, out.String())
		}
		if bytes.Contains(out.Bytes(), []byte("1 of 3 ranks are gone")) {
			recovered++
		}
	}
	if recovered == 0 {
		t.Error("no training went on without a rank: all had ended before")
	}
	t.Logf("%d killed, %d went on without a rank", times, recovered)
}
