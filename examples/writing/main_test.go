package main

import "testing"

func TestRun(t *testing.T) {
	if err := run(1, 20000); err != nil {
		t.Fatal(err)
	}
}
