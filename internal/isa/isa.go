// Package isa says which instruction set the kernels may use.
//
// Terminology: a Level is a set of instructions that a kernel variant needs as a whole. Level() is the best one that the
// CPU has, capped by JOULE_DEBUG=isa=… . Kernels read it at each call, so that a test can run every variant in one process.
package isa

import (
	"fmt"
	"sync/atomic"

	"github.com/jouleml/joule/internal/debug"
)

// Level is an instruction set; each includes those before it.
type Level int32

const (
	Portable Level = iota // plain Go
	AVX2                  // AVX2 and FMA3
	AVX512                // AVX-512 F, BW, CD, DQ, VL
)

func (l Level) String() string { return [...]string{"portable", "avx2", "avx512"}[l] }

// Parse is the inverse of String.
func Parse(s string) (Level, error) {
	for l := Portable; l <= AVX512; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("isa: unknown instruction set %q (known: portable, avx2, avx512)", s)
}

var level atomic.Int32

func init() {
	l := detect()
	if s := debug.Get("isa"); s != "" {
		if c, err := Parse(s); err == nil {
			l = min(l, c)
		}
	}
	level.Store(int32(l))
}

// Best is the highest level that the CPU has.
func Best() Level { return detect() }

// Current is the level that kernels use now.
func Current() Level { return Level(level.Load()) }

// Use makes kernels use level l, or the best there is if the CPU lacks l, and returns a function that undoes it.
// It is for tests and for the CLI's setting; it must not be called while kernels run.
func Use(l Level) (restore func()) {
	old := level.Swap(int32(min(l, Best())))
	return func() { level.Store(old) }
}

// Levels lists every level from Portable to Best: what a test of kernel variants loops over.
func Levels() []Level {
	var ls []Level
	for l := Portable; l <= Best(); l++ {
		ls = append(ls, l)
	}
	return ls
}
