//go:build race

// Package race says whether the race detector runs, under which code allocates more and takes many times as long: tests then check less.
package race

// Enabled reports whether the program was built with -race.
const Enabled = true
