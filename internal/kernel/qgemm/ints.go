package qgemm

import (
	"encoding/binary"
	"fmt"

	"github.com/jouleml/joule/internal/par"
)

// IntSpec says what an IntPlan computes: for each matrix z of the batch C[z] = op(A[z])·op(B[z]) in 32 bits, op(A) being [M, K], op(B) [K, N] and C [M, N], all row-major without gaps.
// Operands are i8 if Signed, u8 if not. Sums wrap around, as those of i32 do.
type IntSpec struct {
	M, N, K int
	TransA  bool // A is stored as [K, M]
	TransB  bool // B is stored as [N, K]
	Batch   int  // the number of products, 0 meaning 1; matrices follow each other
	Signed  bool
}

// IntPlan is an IntSpec with the memory that it needs. One Run at a time.
//
// The tiles multiply u8 by s8. So one operand is moved by 128, and what that adds is taken off each sum again:
//
//	i8·i8  Σk a·b = Σk (a+128)·b - 128·Σk b
//	u8·u8  Σk a·b = Σk a·(b-128) + 128·Σk a
type IntPlan struct {
	IntSpec
	plan  *Plan
	moved []uint8 // A of one product as the tiles take it, if it does not lie so
	phase intPhase
	a, b  []uint8
}

type intPhase uint8

const (
	packB intPhase = iota
	packA
)

// packRows is the rows of A that a chunk packs.
const packRows = 64

// NewInts plans. It panics if a size is below 1.
func NewInts(s IntSpec) *IntPlan {
	s.Batch = max(1, s.Batch)
	if s.M < 1 || s.N < 1 || s.K < 1 {
		panic(fmt.Sprintf("qgemm: bad spec %+v", s))
	}
	p := &IntPlan{IntSpec: s, plan: newPlan(Spec{M: s.M, N: s.N, K: s.K, Groups: 1})}
	if p.plan.level == avx2 {
		p.plan.widen() // B is packed at each run
	}
	p.plan.rowAdd, p.plan.colAdd = make([]int32, s.M), make([]int32, (s.N+p.plan.width-1)/p.plan.width*p.plan.width)
	if s.Signed || s.TransA {
		p.moved = make([]uint8, s.M*s.K)
	}
	return p
}

// Bytes is the memory that the plan holds.
func (p *IntPlan) Bytes() int { return p.plan.Bytes() + len(p.moved) + 4*(p.M+p.N) }

// Run sets c [Batch, M, N] from the elements of a and b as they lie in memory. Of one product b may be nil: that of the last run is taken again.
func (p *IntPlan) Run(pool *par.Pool, c []int32, a, b []uint8) {
	if len(c) < p.Batch*p.M*p.N || len(a) < p.Batch*p.M*p.K || b == nil && p.Batch > 1 || b != nil && len(b) < p.Batch*p.K*p.N {
		panic("qgemm: slice shorter than the plan says")
	}
	q := p.plan
	for z := range p.Batch {
		p.a = a[z*p.M*p.K:][:p.M*p.K]
		if b != nil {
			p.b, p.phase = b[z*p.K*p.N:][:p.K*p.N], packB
			pool.Run((p.N+q.width-1)/q.width, p)
		}
		rows := p.a
		if p.moved != nil || !p.Signed {
			p.phase = packA
			pool.Run((p.M+packRows-1)/packRows, p)
		}
		if p.moved != nil {
			rows = p.moved
		}
		q.yi = c[z*p.M*p.N:][:p.M*p.N]
		q.run(pool, rows)
		q.yi = nil
	}
	p.a, p.b = nil, nil
}

// Chunk packs a part of an operand; it is for package par.
func (p *IntPlan) Chunk(i, _ int) {
	if p.phase == packB {
		p.panel(i)
		return
	}
	flip := uint8(0)
	if p.Signed {
		flip = 0x80
	}
	lo, hi := i*packRows, min((i+1)*packRows, p.M)
	switch {
	case p.TransA:
		for k := range p.K {
			for r, v := range p.a[k*p.M+lo : k*p.M+hi] {
				p.moved[(lo+r)*p.K+k] = v ^ flip
			}
		}
	case p.Signed:
		d, s := p.moved[lo*p.K:hi*p.K], p.a[lo*p.K:hi*p.K]
		for len(s) >= 8 {
			binary.LittleEndian.PutUint64(d, binary.LittleEndian.Uint64(s)^0x8080808080808080)
			d, s = d[8:], s[8:]
		}
		for j, v := range s {
			d[j] = v ^ flip
		}
	}
	if !p.Signed {
		rows := p.a
		if p.moved != nil {
			rows = p.moved
		}
		for r := lo; r < hi; r++ {
			sum := int32(0)
			for _, v := range rows[r*p.K : (r+1)*p.K] {
				sum += int32(v)
			}
			p.plan.rowAdd[r] = 128 * sum
		}
	}
}

// panel packs the columns of panel i of B, and adds them up if A is moved.
func (p *IntPlan) panel(i int) {
	q := p.plan
	w, g := q.width, q.level.group()
	first := i * w
	cols := min(w, p.N-first)
	flip := uint8(0)
	if !p.Signed {
		flip = 0x80
	}
	add := q.colAdd[first : first+w]
	clear(add)
	var row [64]uint8
	for k := range p.K {
		src := row[:cols]
		if p.TransB {
			for j := range src {
				src[j] = p.b[(first+j)*p.K+k]
			}
		} else {
			src = p.b[k*p.N+first:][:cols]
		}
		at := (i*q.groups+k/g)*w*g + k%g
		if q.level == avx2 {
			dst := q.b16[at:]
			for j, v := range src {
				x := int8(v ^ flip)
				dst[j*g] = int16(x)
				add[j] += int32(x)
			}
			continue
		}
		dst := q.b8[at:]
		for j, v := range src {
			x := int8(v ^ flip)
			dst[j*g] = x
			add[j] += int32(x)
		}
	}
	for j := range add {
		if add[j] *= -128; !p.Signed {
			add[j] = 0
		}
	}
}
