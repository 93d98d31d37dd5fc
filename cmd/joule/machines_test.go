//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpitest"
)

// Under every MPI ranks of several pretended machines leave the bits of one process, and say what went between machines: with sums in common memory no more than by messages.
func TestTrainOnMachines(t *testing.T) {
	all := mpitest.All(t)
	want := undisturbed(t, "4")
	across := func(m mpitest.MPI, setting string, args ...string) float64 {
		t.Helper()
		dir := ranksDir(t)
		c := onRanks(m, 4, dir, append([]string{"train", "small.yaml", "--json", "--shards", "4"}, args...)...)
		c.Env = append(c.Env, "JOULE_DEBUG="+setting)
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%s, %s: %v\n%s\n%s", m.Name, setting, err, out, err.(*exec.ExitError).Stderr)
		}
		if finalBits(t, dir) != want {
			t.Errorf("%s, %s: other bits than one process", m.Name, setting)
		}
		lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
		var r struct {
			Across float64      `json:"bytes_across_machines"`
			ByRank []rankReport `json:"by_rank"`
		}
		if err := json.Unmarshal(lines[len(lines)-1], &r); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, k := range r.ByRank {
			sum += float64(k.Across)
		}
		if len(r.ByRank) != 4 || sum != r.Across {
			t.Errorf("%s, %s: %s", m.Name, setting, lines[len(lines)-1])
		}
		return r.Across
	}
	m := all[0]
	// Per step both machines send half of the sums and then half of the results: 13,642 numbers and some, 189 steps.
	least := 189 * 4 * 13642.0 * 2
	for _, m := range all {
		if got := across(m, "machines=2"); got < least || got > 1.2*least {
			t.Errorf("%s: %.0f bytes between machines, of %.0f", m.Name, got, least)
		}
	}
	mixed, messages := across(m, "machines=aaab"), across(m, "machines=aaab,ranks=messages")
	if mixed < least || mixed > 0.9*messages {
		t.Errorf("three ranks and one: %.0f bytes between machines, by messages %.0f", mixed, messages)
	}
	if state := across(m, "machines=ab", "--zero", "2"); state < least {
		t.Errorf("scattered sums: %.0f bytes between machines", state)
	}
	for _, setting := range []string{"2", "aba"} {
		c := onRanks(m, 3, ranksDir(t), "train", "small.yaml", "--epochs", "1")
		c.Env = append(c.Env, "JOULE_DEBUG=machines="+setting)
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "to machines") || strings.Contains(string(out), "not in a row") != (setting == "aba") {
			t.Errorf("machines=%s: %v\n%s", setting, err, out)
		}
	}
	c := onRanks(m, 2, ranksDir(t), "train", "small.yaml", "--epochs", "1")
	c.Env = append(c.Env, "JOULE_DEBUG=machines=x2")
	if out, err := c.CombinedOutput(); err == nil || !strings.Contains(string(out), "machines=x2 must be a number of machines") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Ranks on two machines that are left when one is killed find each other anew, also where a machine is gone.
func TestSurvivingMachines(t *testing.T) {
	m := survivors(t)
	want := undisturbed(t, "4")
	r := moments(7)
	times, recovered := often(3), 0
	for kill := range times {
		t.Setenv("JOULE_DEBUG", "machines="+[]string{"aaab", "2", "ab"}[kill%3])
		if strings.Contains(survive(t, m, r, 4, (3+kill)%4, want, "--shards", "4"), "1 of 4 ranks are gone") {
			recovered++
		}
	}
	if recovered == 0 {
		t.Error("no training went on without a rank: all had ended before")
	}
	t.Logf("%d killed, %d went on without a rank", times, recovered)
}
