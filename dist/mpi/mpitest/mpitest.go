// Package mpitest starts tests on several ranks under every MPI that the machine has.
package mpitest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jouleml/joule/dist/mpi/mpirun"
	"github.com/jouleml/joule/internal/dl"
)

// Variable lists folders of further launchers, separated as in PATH: their bin folders.
const Variable = "JOULE_TEST_MPI"

// MPI is a launcher.
type MPI struct {
	Name string // what mpirun --version says
	Run  string // the path of mpirun
	args []string
}

// All finds the launchers: that of the PATH, and those of JOULE_TEST_MPI. Without any it skips the test.
func All(t testing.TB) []MPI {
	t.Helper()
	if !dl.Available() {
		t.Skip(dl.ErrUnavailable)
	}
	if testing.Short() {
		t.Skip("starts many processes")
	}
	var out []MPI
	seen := map[string]bool{}
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), filepath.SplitList(os.Getenv(Variable))...) {
		path := filepath.Join(dir, "mpirun")
		name, flags, err := mpirun.Flags(path)
		if err != nil {
			continue
		}
		m := MPI{Name: name, Run: path, args: flags}
		if !seen[m.Name] {
			seen[m.Name] = true
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		t.Skip("there is no mpirun: install openmpi-bin or mpich, or name bin folders in " + Variable)
	}
	return out
}

// Survives is the launcher asked to let ranks go on when one dies; ok is false where it cannot.
func (m MPI) Survives() (s MPI, ok bool) {
	s = m
	s.args = append([]string{"--with-ft", "ulfm"}, m.args...)
	return s, strings.Contains(m.Name, "Open MPI) 5")
}

// Command runs a program on n ranks. environment is added to this process's.
func (m MPI) Command(n string, environment []string, program string, args ...string) *exec.Cmd {
	c := exec.Command(m.Run, append(append(append([]string{}, m.args...), "-n", n, program), args...)...)
	c.Env = append(os.Environ(), environment...)
	return c
}
