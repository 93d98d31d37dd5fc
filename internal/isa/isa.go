// Package isa says which instruction set the kernels may use.
//
// Terminology: a Level is a set of instructions that a kernel variant needs as a whole. Level() is the best one that the
// CPU has, capped by JOULE_DEBUG=isa=… . Kernels read it at each call, so that a test can run every variant in one process.
package isa

import (
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/jouleml/joule/internal/debug"
)

// Level is an instruction set; each includes those before it, but for AVXVNNI, which AVX512 need not have.
type Level int32

const (
	Portable Level = iota // plain Go
	AVX2                  // AVX2 and FMA3
	AVXVNNI               // for products of bytes alone: on 256 bits (AVX-VNNI), which not every CPU with AVX-512 has; all else is as with AVX2
	AVX512                // AVX-512 F, BW, CD, DQ, VL
)

func (l Level) String() string { return [...]string{"portable", "avx2", "avxvnni", "avx512"}[l] }

// Parse is the inverse of String.
func Parse(s string) (Level, error) {
	for l := Portable; l <= AVX512; l++ {
		if l.String() == s {
			return l, nil
		}
	}
	return 0, fmt.Errorf("isa: unknown instruction set %q (known: portable, avx2, avxvnni, avx512)", s)
}

var level atomic.Int32

func init() {
	l := detect()
	if s := debug.Get("isa"); s != "" {
		if c, err := Parse(s); err == nil {
			l = held(c)
		}
	}
	level.Store(int32(l))
}

// held is level l, or the best there is below it if the CPU lacks l.
func held(l Level) Level {
	if l = min(l, detect()); l == AVXVNNI && !hasAVXVNNI() {
		return AVX2
	}
	return l
}

// Has reports whether the CPU has level l.
func Has(l Level) bool { return held(l) == l }

// Best is the highest level that the CPU has, AVXVNNI aside.
func Best() Level { return others(detect()) }

// Current is the level that kernels use now, but for products of bytes.
func Current() Level { return others(Bytes()) }

// Bytes is the level that products of bytes use now: Current, or AVXVNNI.
func Bytes() Level { return Level(level.Load()) }

// others is what all kernels but products of bytes use at level l.
func others(l Level) Level {
	if l == AVXVNNI {
		return AVX2
	}
	return l
}

// Use makes kernels use level l, or the best there is if the CPU lacks l, and returns a function that undoes it.
// It is for tests and for the CLI's setting; it must not be called while kernels run.
func Use(l Level) (restore func()) {
	old := level.Swap(int32(held(l)))
	return func() { level.Store(old) }
}

// Levels lists the levels that the CPU has and for which kernels of all kinds differ: what a test of kernel variants loops over.
func Levels() []Level {
	return slices.DeleteFunc(ByteLevels(), func(l Level) bool { return l == AVXVNNI })
}

// ByteLevels lists every level that the CPU has: what a test of products of bytes loops over.
func ByteLevels() []Level {
	var ls []Level
	for l := Portable; l <= AVX512; l++ {
		if Has(l) {
			ls = append(ls, l)
		}
	}
	return ls
}
