//go:build unix

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// survivors is a launcher that lets ranks go on when one dies.
func survivors(t *testing.T) mpitest.MPI {
	t.Helper()
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("needs /proc to find the ranks")
	}
	for _, x := range mpitest.All(t) {
		if m, ok := x.Survives(); ok {
			return m
		}
	}
	t.Skip("needs Open MPI 5: name its bin folder in " + mpitest.Variable)
	return mpitest.MPI{}
}

// survive kills rank victim of a job of n at a random moment after it has begun. The others must bring it to its end, with the bits of want; said is what was printed.
func survive(t *testing.T, m mpitest.MPI, r *rand.Rand, n, victim int, want string, args ...string) (said string) {
	t.Helper()
	const hang = 5 * time.Minute // a job takes two seconds, on a machine that stops it for others much longer
	dir := ranksDir(t)
	c := onRanks(m, n, dir, append([]string{"train", "small.yaml", "--quiet", "--checkpoint-every", "20ms"}, args...)...)
	out, ps := begun(t, c, dir, n)
	time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	_ = syscall.Kill(ps[victim], syscall.SIGKILL)
	done := time.AfterFunc(hang, func() { // with what each goroutine was at
		for _, p := range processes(c.Process.Pid) {
			_ = syscall.Kill(p, syscall.SIGQUIT)
		}
		time.Sleep(2 * time.Second)
		_ = c.Process.Kill()
	})
	_ = c.Wait() // the launcher reports the rank that was killed
	if !done.Stop() {
		t.Fatalf("the job did not end within %v\n%s", hang, out.String())
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "runs", "*", modelFile)); len(files) != 1 {
		t.Fatalf("the training did not come to its end\n%s", out.String())
	}
	if finalBits(t, dir) != want {
		t.Fatalf("other bits than undisturbed\n%s", out.String())
	}
	return out.String()
}

// often is how often ranks are killed: JOULE_TEST_SURVIVALS, or so many times.
func often(times int) int {
	if n, err := strconv.Atoi(os.Getenv("JOULE_TEST_SURVIVALS")); err == nil {
		return n
	}
	return times
}

// Under an MPI with ULFM the ranks that are left when one is killed, whichever it is and whenever, go on from the last checkpoint by themselves and end with the bits of an undisturbed training.
// JOULE_TEST_SURVIVALS sets how often (default 3).
func TestSurvivingRanks(t *testing.T) {
	m := survivors(t)
	times := often(3)
	want := undisturbed(t, "3")
	r := moments(5)
	recovered := 0
	for kill := range times {
		if strings.Contains(survive(t, m, r, 3, kill%3, want), "1 of 3 ranks are gone") {
			recovered++
		}
	}
	if recovered == 0 {
		t.Error("no training went on without a rank: all had ended before")
	}
	t.Logf("%d killed, %d went on without a rank", times, recovered)
}

// Pipeline stages go on too: with one rank for all layers, or with the layers cut anew for as many ranks as are left.
func TestSurvivingStages(t *testing.T) {
	m := survivors(t)
	want := undisturbed(t, "4")
	r := moments(6)
	recovered := 0
	times := often(3)
	for kill := range times {
		n, cut := 2, "go on from the last checkpoint" // one rank is left
		if kill%2 == 1 {
			n, cut = 4, "3 ranks are no multiple of 2 pipeline stages: the layers are cut into 3"
		}
		said := survive(t, m, r, n, kill/2%n, want, "--pipeline", "2", "--shards", "4")
		if !strings.Contains(said, "ranks are gone") {
			continue
		}
		if recovered++; !strings.Contains(said, cut) {
			t.Errorf("%s", said)
		}
	}
	if recovered == 0 {
		t.Error("no training went on without a rank: all had ended before")
	}
	t.Logf("%d killed, %d went on without a rank", times, recovered)
}
