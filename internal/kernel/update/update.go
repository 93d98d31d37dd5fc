// Package update applies optimiser steps to parameters in one pass over memory.
//
// The formulas are those of Keras 3 (keras/src/optimizers), element by element, with g the gradient times the scale given to Run and t the step,
// counted from 1. Every optimiser first does w -= w·shrink, with shrink = lr·decay where weight decay is on and 0 where it is not, then
//
//	SGD       w -= lr·g
//	          m = μ·m - lr·g;  w += m                    (momentum μ)
//	          m = μ·m - lr·g;  w += μ·m - lr·g           (Nesterov)
//	Adam      m += (1-β1)·(g - m);  v += (1-β2)·(g² - v)
//	          w -= α·m/(√v + ε),  α = lr·√(1-β2^t)/(1-β1^t)
//	RMSprop   v = ρ·v + (1-ρ)·g²
//	          a = ρ·a + (1-ρ)·g                          (centered, else a = 0)
//	          m = μ·m + lr·g/√(v - a² + ε);  w -= m      (μ = 0 needs no m)
//	Lion      w -= lr·sign(β1·m + (1-β1)·g);  m = β2·m + (1-β2)·g
//
// Each operation rounds to float32 on its own, so every instruction set and every number of threads gives the same bits.
//
//go:generate go run -C ../vec/_asm ./update -pkg update -out ../../update/update_amd64.s -stubs ../../update/stubs_amd64.go
package update

import (
	"math"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// Kind names an optimiser.
type Kind uint8

// The optimisers. AdamW is Adam with weight decay.
const (
	SGD Kind = iota
	Adam
	RMSprop
	Lion
	numKinds
)

// Spec says how parameters are updated. Fields that a kind does not use are ignored.
type Spec struct {
	Kind         Kind
	Momentum     float64 // SGD, RMSprop: μ
	Nesterov     bool    // SGD
	Beta1, Beta2 float64 // Adam, Lion
	Rho          float64 // RMSprop
	Centered     bool    // RMSprop
	Epsilon      float64 // Adam, RMSprop
}

// Slots is how many arrays of state, each of the parameter's size and 0 at first, the optimiser keeps for a parameter:
//
//	SGD 0, or 1 (m) with momentum · Adam 2 (m, v) · RMSprop 1 (v), m with momentum, and last a if centered · Lion 1 (m)
func (s Spec) Slots() int {
	switch s.Kind {
	case Adam:
		return 2
	case RMSprop:
		n := 1
		if s.Momentum != 0 {
			n++
		}
		if s.Centered {
			n++
		}
		return n
	case Lion:
		return 1
	}
	if s.Momentum != 0 {
		return 1
	}
	return 0
}

// leaf updates one piece of a parameter; the assembly stubs document it.
type leaf = func(w, grad, s0, s1, s2 []float32, c *[8]float32)

// A rule is one of the ways to update an element.
type rule uint8

const (
	sgd rule = iota
	momentum
	nesterov
	adam
	lion
	rms
	rmsMomentum
	rmsCentered
	numRules
)

func (s Spec) rule() rule {
	switch s.Kind {
	case Adam:
		return adam
	case RMSprop:
		switch {
		case s.Centered:
			return rmsCentered
		case s.Momentum != 0:
			return rmsMomentum
		}
		return rms
	case Lion:
		return lion
	}
	switch {
	case s.Momentum == 0:
		return sgd
	case s.Nesterov:
		return nesterov
	}
	return momentum
}

// Rate is the rate of step t (1 is the first) at learning rate lr: Adam's is corrected for the bias of its means, those of others are lr itself.
func (s Spec) Rate(lr float64, t int64) float32 {
	if s.Kind == Adam {
		lr *= math.Sqrt(1-math.Pow(s.Beta2, float64(t))) / (1 - math.Pow(s.Beta1, float64(t)))
	}
	return float32(lr)
}

// constants are what a leaf reads behind the scale, the share to shrink by and the rate.
func (s Spec) constants() []float64 {
	switch s.rule() {
	case sgd:
		return nil
	case momentum, nesterov:
		return []float64{s.Momentum}
	case adam:
		return []float64{1 - s.Beta1, 1 - s.Beta2, s.Epsilon}
	case lion:
		return []float64{s.Beta1, 1 - s.Beta1, s.Beta2, 1 - s.Beta2}
	}
	return []float64{s.Rho, 1 - s.Rho, s.Epsilon, s.Momentum}
}

// Param is one parameter: its values, gradient and state, all of one length, and what belongs to the step. Slots beyond Spec.Slots() are ignored.
type Param struct {
	W, Grad []float32
	Slots   [3][]float32
	Rate    float32 // see Spec.Rate
	Shrink  float32 // the share of itself that the parameter loses: learning rate times weight decay
	Scale   float32 // of the gradient: 1, or less to clip by a norm or to average accumulated gradients
}

// chunkLen is how many elements make a chunk of work: about 10 µs at the speed of memory.
const chunkLen = 16384

// Plan updates a list of parameters. It must not run twice at the same time.
type Plan struct {
	spec    Spec
	leaf    leaf
	slots   int
	lens    []int
	pieces  []piece // in order of parameters
	chunks  []int   // where each begins among the pieces: many small parameters make one
	params  []Param
	c       [8]float32   // the constants, behind room for what belongs to a parameter
	scratch [][]float32  // by worker: the m of a centered RMSprop without momentum
	each    [][8]float32 // by worker: what its leaf reads
}

type piece struct{ param, from, to int }

// New plans for parameters of the given numbers of elements. It panics on an unknown kind or a negative length.
func New(s Spec, lens []int) *Plan {
	if s.Kind >= numKinds {
		panic("update: unknown optimiser")
	}
	p := &Plan{spec: s, leaf: table[isa.Current()][s.rule()], slots: s.Slots(), lens: append([]int(nil), lens...)}
	for i, v := range s.constants() {
		p.c[3+i] = float32(v)
	}
	room := 0 // left in the chunk
	for i, n := range lens {
		if n < 0 {
			panic("update: negative length")
		}
		for from := 0; from < n; from += chunkLen {
			k := piece{i, from, min(from+chunkLen, n)}
			if k.to-k.from > room {
				p.chunks = append(p.chunks, len(p.pieces))
				room = chunkLen
			}
			room -= k.to - k.from
			p.pieces = append(p.pieces, k)
		}
	}
	return p
}

// Run does a step. It panics if the slices are not of the planned lengths.
func (p *Plan) Run(pool *par.Pool, params []Param) {
	if len(params) != len(p.lens) {
		panic("update: not the planned number of parameters")
	}
	for i := range params {
		q, n := &params[i], p.lens[i]
		bad := len(q.W) != n || len(q.Grad) != n
		for _, s := range q.Slots[:p.slots] {
			bad = bad || len(s) != n
		}
		if bad {
			panic("update: slice is not of the planned length")
		}
	}
	for len(p.each) < pool.Threads() {
		p.each = append(p.each, [8]float32{})
		if p.withoutMomentum() {
			p.scratch = append(p.scratch, make([]float32, chunkLen))
		}
	}
	p.params = params
	pool.Run(len(p.chunks), (*pieces)(p))
	p.params = nil
}

// withoutMomentum reports whether a leaf is given an m that is nobody's: there is one leaf for a centered RMSprop.
func (p *Plan) withoutMomentum() bool { return p.spec.rule() == rmsCentered && p.spec.Momentum == 0 }

type pieces Plan

func (p *pieces) Chunk(i, worker int) {
	end := len(p.pieces)
	if i+1 < len(p.chunks) {
		end = p.chunks[i+1]
	}
	c := &p.each[worker]
	*c = p.c
	for _, k := range p.pieces[p.chunks[i]:end] {
		q := &p.params[k.param]
		c[0], c[1], c[2] = q.Scale, q.Shrink, q.Rate
		var s [3][]float32
		for j := range p.slots {
			s[j] = q.Slots[j][k.from:k.to]
		}
		if (*Plan)(p).withoutMomentum() {
			m := p.scratch[worker][:k.to-k.from]
			clear(m)
			s[1], s[2] = m, s[1]
		}
		p.leaf(q.W[k.from:k.to], q.Grad[k.from:k.to], s[0], s[1], s[2], c)
	}
}
