package dist_test

import (
	"fmt"
	"sync"

	"github.com/jouleml/joule/dist"
)

// Three ranks, here goroutines of one process, add up what each has.
func ExampleComm_AllReduce() {
	var wg sync.WaitGroup
	sums := make([][]float32, 3)
	for rank, t := range dist.Local(3) {
		wg.Go(func() {
			c := dist.New(t, dist.DefaultDeadline)
			defer c.Close()
			x := []float32{float32(rank), 10}
			if err := c.AllReduce(x); err != nil {
				fmt.Println(err)
			}
			sums[rank] = x
		})
	}
	wg.Wait()
	fmt.Println(sums)
	// Output: [[3 30] [3 30] [3 30]]
}
