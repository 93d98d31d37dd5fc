package plan_test

import (
	"fmt"

	"github.com/jouleml/joule/dist/plan"
)

// What it takes to add up 100 MB of gradients over 8 machines on a link of 10 gigabits and 20 microseconds.
func ExampleRing() {
	link := plan.Link{20e-6, 1.25e9}
	fmt.Printf("ring %.1f ms, doubling %.1f ms\n", 1e3*plan.Ring(link, 8, 1e8), 1e3*plan.Doubling(link, 8, 1e8))
	// Output: ring 140.3 ms, doubling 240.1 ms
}
