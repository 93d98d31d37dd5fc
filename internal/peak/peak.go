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
// reach together in registers, with the vectors of isa.Current(). On a portable build it is that of plain Go code.
func FLOPS(threads int) float64 {
	const rounds = 20_000 // about 0.1 ms a go
	perRound := 2 * chains * vectorLanes()
	return float64(threads*rounds*perRound) / best(threads, func(int) { fma(rounds) })
}

// bandwidthBytes is the memory that ReadBandwidth walks through: several times the last-level cache of a desktop or of one
// cache domain of a server.
const bandwidthBytes = 128 << 20

// ReadBandwidth is the number of bytes per second that the given number of threads read together from memory. While it runs
// it holds 128 MB.
func ReadBandwidth(threads int) float64 {
	buf := make([]byte, bandwidthBytes)
	for i := 0; i < len(buf); i += 4096 {
		buf[i] = 1 // an untouched page is a mapping of the one zero page and would be read from the cache
	}
	// A round is a whole pass over the buffer, so that what the cache still holds of the last pass is gone before it comes up.
	part := bandwidthBytes / threads / 512 * 512
	return float64(threads*part) / best(threads, func(t int) {
		for p := buf[t*part:][:part]; len(p) > 0; {
			n := min(len(p), 1<<20) // an assembly call cannot be interrupted: keep it short
			read(p[:n])
			p = p[n:]
		}
	})
}

// best runs f(0) … f(threads−1) at the same time, again and again, and returns the shortest time in seconds from the common
// start to the last end.
func best(threads int, f func(thread int)) float64 {
	var (
		round   atomic.Int64 // the round that may start; −1: no more
		ready   atomic.Int64 // threads that wait for the next round
		done    atomic.Int64
		wg      sync.WaitGroup
		fastest = time.Duration(1<<63 - 1)
	)
	turn := func(t int) { f(t); done.Add(1) }
	for t := 1; t < threads; t++ {
		wg.Go(func() {
			for seen := int64(0); ; {
				ready.Add(1)
				for round.Load() == seen {
					if threads > runtime.GOMAXPROCS(0) {
						runtime.Gosched()
					}
				}
				if seen = round.Load(); seen < 0 {
					return
				}
				turn(t)
			}
		})
	}
	end := time.Now().Add(budget)
	for i := int64(1); i == 1 || time.Now().Before(end); i++ {
		for ready.Load() < int64(threads-1) {
			runtime.Gosched()
		}
		ready.Store(0)
		done.Store(0)
		start := time.Now()
		round.Store(i)
		turn(0)
		for done.Load() < int64(threads) {
			runtime.Gosched()
		}
		fastest = min(fastest, time.Since(start))
	}
	round.Store(-1)
	wg.Wait()
	return max(fastest, 1).Seconds() // a clock may be too coarse to see the round
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
