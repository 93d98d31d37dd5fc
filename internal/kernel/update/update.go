// Package update applies optimiser steps to parameters in one pass over memory.
//
// The formulas are those of Keras 3 (keras/src/optimizers), element by element, with g the gradient times the scale given to Run and t the step,
// counted from 1. Every optimiser first does w -= w·(lr·decay) where weight decay is on, then
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
	WeightDecay  float64 // decoupled from the gradient, times the learning rate
}

// Slots is how many arrays of state, each of the parameter's size and 0 at first, the optimiser keeps for a parameter:
//
//	SGD 0, or 1 (m) with momentum · Adam 2 (m, v) · RMSprop 1 (v), 2 (v, m) with momentum, 3 (v, m, a) if centered · Lion 1 (m)
func (s Spec) Slots() int {
	switch s.Kind {
	case Adam:
		return 2
	case RMSprop:
		switch {
		case s.Centered:
			return 3
		case s.Momentum != 0:
			return 2
		}
		return 1
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

// coefficients are what a leaf reads: the gradient's scale, the decay, then the rule's own.
func (s Spec) coefficients(lr float64, t int64, scale float64) (c [8]float32) {
	var own []float64
	switch s.rule() {
	case sgd:
		own = []float64{lr}
	case momentum, nesterov:
		own = []float64{lr, s.Momentum}
	case adam:
		alpha := lr * math.Sqrt(1-math.Pow(s.Beta2, float64(t))) / (1 - math.Pow(s.Beta1, float64(t)))
		own = []float64{alpha, 1 - s.Beta1, 1 - s.Beta2, s.Epsilon}
	case lion:
		own = []float64{lr, s.Beta1, 1 - s.Beta1, s.Beta2, 1 - s.Beta2}
	default:
		own = []float64{lr, s.Rho, 1 - s.Rho, s.Epsilon, s.Momentum}
	}
	c[0], c[1] = float32(scale), float32(lr*s.WeightDecay)
	for i, x := range own {
		c[2+i] = float32(x)
	}
	return c
}

// Param is one parameter: its values, gradient and state, all of one length. Slots beyond Spec.Slots() are ignored.
type Param struct {
	W, Grad []float32
	Slots   [3][]float32
	NoDecay bool // weight decay does not apply, as is usual for biases and normalisation
}

// chunkLen is how many elements make a chunk of work: about 10 µs at the speed of memory.
const chunkLen = 16384

// Plan updates a list of parameters. It must not run twice at the same time.
type Plan struct {
	spec   Spec
	leaf   leaf
	lens   []int
	pieces []piece // in order of parameters
	params []Param
	c      [2][8]float32 // with and without decay
}

type piece struct{ param, from, to int }

// New plans for parameters of the given numbers of elements. It panics on an unknown kind or a negative length.
func New(s Spec, lens []int) *Plan {
	if s.Kind >= numKinds {
		panic("update: unknown optimiser")
	}
	p := &Plan{spec: s, leaf: table[isa.Current()][s.rule()], lens: append([]int(nil), lens...)}
	for i, n := range lens {
		if n < 0 {
			panic("update: negative length")
		}
		for from := 0; from < n; from += chunkLen {
			p.pieces = append(p.pieces, piece{i, from, min(from+chunkLen, n)})
		}
	}
	return p
}

// Run does step t (1 is the first) with learning rate lr on gradients times scale (1, or less to clip by the global norm or to
// average accumulated gradients). It panics if the slices are not of the planned lengths.
func (p *Plan) Run(pool *par.Pool, params []Param, lr float64, t int64, scale float64) {
	if len(params) != len(p.lens) {
		panic("update: not the planned number of parameters")
	}
	for i := range params {
		q, n := &params[i], p.lens[i]
		bad := len(q.W) != n || len(q.Grad) != n
		for _, s := range q.Slots[:p.spec.Slots()] {
			bad = bad || len(s) != n
		}
		if bad {
			panic("update: slice is not of the planned length")
		}
	}
	p.params = params
	p.c[0] = p.spec.coefficients(lr, t, scale)
	p.c[1] = p.c[0]
	p.c[1][1] = 0
	pool.Run(len(p.pieces), (*pieces)(p))
	p.params = nil
}

type pieces Plan

func (p *pieces) Chunk(i, _ int) {
	k := p.pieces[i]
	q := &p.params[k.param]
	c := &p.c[0]
	if q.NoDecay {
		c = &p.c[1]
	}
	var s [3][]float32
	for j := range p.spec.Slots() {
		s[j] = q.Slots[j][k.from:k.to]
	}
	p.leaf(q.W[k.from:k.to], q.Grad[k.from:k.to], s[0], s[1], s[2], c)
}
