//go:build race

package conv

// race says that the race detector runs, under which the reference takes minutes.
const race = true
