package main

import "testing"

func TestRun(t *testing.T) {
	if err := run(640); err != nil {
		t.Fatal(err)
	}
}
