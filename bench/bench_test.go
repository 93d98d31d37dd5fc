package bench

import "testing"

func TestFigures(t *testing.T) {
	f := Figure{MS: []float64{3, 1, 9, 2, 4}}
	if f.Best() != 1 || f.Median() != 3 {
		t.Fatalf("best %v, median %v", f.Best(), f.Median())
	}
}

// Every work can be set up and runs.
func TestWorksRun(t *testing.T) {
	for _, w := range works() {
		if w.flops > 1e9 {
			continue // the great products take long under the race detector
		}
		run, err := w.setup(2)
		if err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		if err := run(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
	}
}
