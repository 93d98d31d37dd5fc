package mpirun_test

import (
	"fmt"

	"github.com/jouleml/joule/dist/mpi/mpirun"
)

// A program that starts ranks asks how this machine's launcher wants to be called.
func ExampleFlags() {
	if _, _, err := mpirun.Flags("no-such-mpirun"); err != nil {
		fmt.Println("no launcher")
	}
	// Output: no launcher
}
