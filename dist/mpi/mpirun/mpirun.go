// Package mpirun knows the launchers of the usual MPIs.
package mpirun

import (
	"fmt"
	"os/exec"
	"strings"
)

// Flags says what the launcher at a path (such as "mpirun") calls itself, and with which flags it starts ranks that may be more than the machine's processors and are bound to none of them.
func Flags(path string) (name string, flags []string, err error) {
	text, err := exec.Command(path, "--version").CombinedOutput()
	if err != nil {
		return "", nil, fmt.Errorf("mpirun: %s --version: %w", path, err)
	}
	name, _, _ = strings.Cut(strings.TrimSpace(string(text)), "\n")
	switch name = strings.TrimSpace(name); {
	case strings.Contains(name, "Open MPI) 4"):
		return name, []string{"--allow-run-as-root", "--oversubscribe", "--bind-to", "none"}, nil
	case strings.Contains(name, "Open MPI"):
		return name, []string{"--allow-run-as-root", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"}, nil
	}
	return "MPICH (Hydra)", nil, nil
}
