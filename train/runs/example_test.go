package runs_test

import (
	"fmt"
	"os"

	"github.com/jouleml/joule/format/csvlog"
	"github.com/jouleml/joule/train/runs"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store := runs.Open(dir)

	for seed, accuracy := range []float64{0.98, 0.99} {
		run, err := store.Create(runs.Info{Name: "mnist", Seed: uint64(seed), Threads: 2})
		if err != nil {
			fmt.Println(err)
			return
		}
		// The training puts its checkpoints under run.Path("checkpoints"), its event files under run.Info().Dir, and so on.
		err = run.Append(runs.Epoch{Epoch: 1, Seconds: 2.5, Joules: 90, Metrics: []csvlog.Value{{Name: "loss", Value: 0.1}}})
		if err == nil {
			err = run.Finish(runs.Outcome{State: runs.Done, Results: runs.Values{"test_accuracy": accuracy, "joules": 90}})
		}
		if err != nil {
			fmt.Println(err)
			return
		}
	}

	list, err := store.List(runs.Query{Sort: "test_accuracy"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range list.Runs {
		fmt.Println(r.Name, r.Seed, r.State, r.Results["test_accuracy"])
	}
	c, err := store.Compare(list.Runs[0].ID, list.Runs[1].ID)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Settings, c.Results)
	// Output:
	// mnist 1 done 0.99
	// mnist 0 done 0.98
	// [{seed 1 0}] [{joules 90 90} {test_accuracy 0.99 0.98}]
}
