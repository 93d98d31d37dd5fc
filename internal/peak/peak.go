// Package peak measures what the machine can do at best: fused multiply-adds and memory reads per second.
//
// Reached speeds are quoted as a share of these, so they are measured on the machine at hand in the same minutes, never looked
// up: clock rates vary with the instruction set, the neighbours and the weather. A figure is the best of the rounds that
// fit in about 50 ms; noise can only lower it.
package peak

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jouleml/joule/internal/isa"
)

//go:generate sh -c "cd _asm && go run . -out ../peak_amd64.s -stubs ../stubs_amd64.go -pkg peak"

const budget = 50 * time.Millisecond

// chains is the number of independent FMA chains in a round of the assembly loops.
const chains = 12

// FLOPS is the number of f32 operations per second (a fused multiply-add counts as two) that the given number of threads
// reach in registers, with the vectors of isa.Current(). On a portable build it is that of plain Go code.
func FLOPS(threads int) float64 {
	const rounds = 20_000 // about 0.1 ms a go
	perRound := 2 * chains * vectorLanes()
	return float64(rounds*perRound) * rate(threads, func(int) { fma(rounds) })
}

// bandwidthBytes is the memory that ReadBandwidth walks through: several times the last-level cache of a desktop or of one
// cache domain of a server.
const bandwidthBytes = 128 << 20

// ReadBandwidth is the number of bytes per second that the given number of threads read from memory. While it runs it holds
// 128 MB.
func ReadBandwidth(threads int) float64 { return ReadRate(threads, bandwidthBytes) }

// ReadRate is ReadBandwidth over so many bytes: at least 512 for each thread.
func ReadRate(threads, size int) float64 {
	buf := make([]byte, size)
	for i := 0; i < len(buf); i += 4096 {
		buf[i] = 1 // an untouched page is a mapping of the one zero page and would be read from the cache
	}
	// A go is a whole pass over the buffer, so that what the cache still holds of the last pass is gone before it comes up.
	part := size / threads / 512 * 512
	return float64(part) * rate(threads, func(t int) {
		for p := buf[t*part:][:part]; len(p) > 0; {
			n := min(len(p), 1<<20) // an assembly call cannot be interrupted: keep it short
			read(p[:n])
			p = p[n:]
		}
	})
}

// rate runs f(0) … f(threads−1), each again and again on a thread of its own, all at the same time, and returns the sum of
// what each thread reaches at best, in goes per second. (To wait for each other between goes would be stricter where threads
// share something, but on a busy machine they would then hardly ever run together.)
func rate(threads int, f func(thread int)) float64 {
	var (
		wg      sync.WaitGroup
		running atomic.Int64
		fastest = make([]time.Duration, threads)
	)
	for t := range threads {
		wg.Go(func() {
			running.Add(1)
			for running.Load() < int64(threads) {
				runtime.Gosched()
			}
			best := time.Duration(1<<63 - 1)
			start := time.Now()
			for end := start.Add(budget); start.Before(end); {
				f(t)
				now := time.Now()
				best = min(best, now.Sub(start))
				start = now
			}
			fastest[t] = max(best, 1) // a clock may be too coarse to see the go
		})
	}
	wg.Wait()
	sum := 0.0
	for _, d := range fastest {
		sum += 1 / d.Seconds()
	}
	if cpus := min(runtime.GOMAXPROCS(0), runtime.NumCPU()); threads > cpus {
		// They took turns, and each had a CPU to itself at its best.
		sum *= float64(cpus) / float64(threads)
	}
	return sum
}

func vectorLanes() int {
	switch isa.Current() {
	case isa.AVX512:
		return 16
	case isa.AVX2:
		return 8
	}
	return 1
}

// fmaGo does n rounds of 12 independent multiply-adds.
func fmaGo(n int) {
	var a [chains]float32
	x, y := one, one
	for range n {
		a[0] += x * y
		a[1] += x * y
		a[2] += x * y
		a[3] += x * y
		a[4] += x * y
		a[5] += x * y
		a[6] += x * y
		a[7] += x * y
		a[8] += x * y
		a[9] += x * y
		a[10] += x * y
		a[11] += x * y
		x += y
	}
	var s float32
	for _, v := range a {
		s += v
	}
	sinkF.Store(s != 0)
}

// one is a variable, so that the compiler must do the arithmetic.
var one float32 = 1

var (
	sinkF atomic.Bool
	sinkR atomic.Uint64
)

// readGo reads buf a word at a time.
func readGo(buf []byte) {
	var s uint64
	for len(buf) >= 32 {
		s += binary.LittleEndian.Uint64(buf[0:]) + binary.LittleEndian.Uint64(buf[8:]) + binary.LittleEndian.Uint64(buf[16:]) + binary.LittleEndian.Uint64(buf[24:])
		buf = buf[32:]
	}
	sinkR.Store(s)
}
