package checkpoint

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killEnv names the folder in which the test binary, run again as a child, saves until it is killed.
const killEnv = "JOULE_CHECKPOINT_KILL_TEST"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		saveForEver(dir)
	}
	os.Exit(m.Run())
}

// saveForEver goes on from the newest checkpoint and prints the step of each that it has saved.
func saveForEver(dir string) {
	step := int64(0)
	if l, err := Latest(dir); err == nil {
		step = l.Step
	}
	for {
		step++
		if _, err := (Folder{Dir: dir, Keep: 2}).Save(state(step, float64(step%5))); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println(step)
	}
}

// TestKill kills a saving process at random instants; each time the newest checkpoint is whole and no older than the last one that
// the process had reported.
func TestKill(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 5
	}
	dir := t.TempDir()
	leftovers := 0
	for i := range kills {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() { // it has started and saved once
			t.Fatal("the child said nothing")
		}
		last := lines.Text()
		timer := time.AfterFunc(time.Duration(rand.IntN(30_000))*time.Microsecond, func() { child.Process.Kill() })
		for lines.Scan() {
			last = lines.Text()
		}
		timer.Stop()
		child.Wait()
		if strings.HasPrefix(last, "error") {
			t.Fatal(last)
		}
		reported, err := strconv.ParseInt(last, 10, 64)
		if err != nil {
			t.Fatalf("the child printed %q", last)
		}
		got, err := Latest(dir)
		if err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		check(t, got.State, got.Step)
		if got.Step < reported || got.Step > reported+1 || len(got.Skipped) > 0 {
			t.Fatalf("kill %d: step %d is the newest after %d was reported, skipped %v", i, got.Step, reported, got.Skipped)
		}
		all, temps, err := list(dir)
		if err != nil || len(all) > 5 || len(temps) > 1 {
			t.Fatalf("kill %d: %d checkpoints, %d temporary files (%v)", i, len(all), len(temps), err)
		}
		leftovers += len(temps)
	}
	t.Logf("%d kills, %d of them in the middle of a file", kills, leftovers)
}
