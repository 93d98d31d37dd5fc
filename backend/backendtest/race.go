//go:build race

package backendtest

const raceEnabled = true // the race detector allocates
