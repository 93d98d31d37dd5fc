package mpi_test

import (
	"fmt"

	"github.com/jouleml/joule/dist/mpi"
)

// A program asks first whether a launcher such as mpirun has started it; Init then finds the library.
func ExampleLaunched() {
	if !mpi.Launched() {
		fmt.Println("one process")
		return
	}
	transport, err := mpi.Init()
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("rank", transport.Rank(), "of", transport.Size())
	// Output: one process
}
