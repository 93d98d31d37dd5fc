package conv

import (
	"slices"
	"testing"

	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/internal/par"
)

// tileCases are products that package tgemm takes in all three directions, none of them much larger than need be.
var tileCases = []Spec{
	{N: 1, H: 17, W: 15, Cin: 381, Cout: 255, KH: 1, KW: 1}, // no multiple of anything
	{N: 1, H: 17, W: 15, Cin: 512, Cout: 191, KH: 1, KW: 1}, // forward the sum is cut into parts
	{N: 2, H: 10, W: 16, Cin: 192, Cout: 512, KH: 1, KW: 1}, // whole blocks; backward parts
}

const onAMX = "product on AMX"

func needAMX(t *testing.T) {
	if !isa.AMX() {
		t.Skip("no AMX")
	}
}

// TestOnAMX holds products of parts of numbers to the same bound as all others.
func TestOnAMX(t *testing.T) {
	needAMX(t)
	pool := par.New(2)
	defer pool.Close()
	for _, s := range tileCases {
		t.Run(s.label(), func(t *testing.T) {
			p := New(s)
			for d := Forward; d <= BackwardFilter; d++ {
				if p.Algorithm(d) != onAMX {
					t.Fatalf("direction %d: %s", d, p.Algorithm(d))
				}
				if n := p.Executed(d); n < 6*s.FLOPs() || p.BF16(d) != n {
					t.Errorf("direction %d: %d executed, %d of bf16, want 6 times %d or some more", d, n, p.BF16(d), s.FLOPs())
				}
			}
			compare(t, s, New, pool)
		})
	}
}

// TestFewChannels holds that large images of few channels are left to the other algorithm, but for the gradient of their filters.
func TestFewChannels(t *testing.T) {
	needAMX(t)
	p := New(Spec{N: 32, H: 28, W: 28, Cin: 128, Cout: 512, KH: 1, KW: 1})
	if f, b, w := p.Algorithm(Forward), p.Algorithm(BackwardInput), p.Algorithm(BackwardFilter); f != "direct" || b != "direct" || w != onAMX {
		t.Errorf("%s, %s, %s", f, b, w)
	}
}

// TestInsteadOfAMX holds the algorithms that serve such shapes where there is no AMX to it, whatever this CPU has.
func TestInsteadOfAMX(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	compare(t, tileCases[0], func(s Spec) *Plan {
		p := New(s)
		p.fwd, p.bwd, p.filt = newDirectForward(p.spec), newDirectBackward(p.spec), newPointwiseFilter(p.spec)
		if p.BF16(Forward)+p.BF16(BackwardInput)+p.BF16(BackwardFilter) != 0 {
			t.Error("products of bf16")
		}
		return p
	}, pool)
}

// TestLend holds that memory which plans share, of whatever contents, changes no bit, and that too little of it is not used.
func TestLend(t *testing.T) {
	pool := par.New(2)
	defer pool.Close()
	for _, s := range tileCases {
		o := newOperands(s)
		results := func(p *Plan) (all []float32) {
			y, dx, dw := make([]float32, s.SizeY()), make([]float32, s.SizeX()), make([]float32, s.SizeW())
			p.SetFilter(pool, o.w)
			p.Forward(pool, o.x, nil, nil, y)
			p.BackwardInput(pool, o.w, o.dy, dx)
			p.BackwardFilter(pool, o.x, o.dy, dw)
			return slices.Concat(y, dx, dw)
		}
		want := results(New(s))
		for _, missing := range []int{0, 1} {
			p, scratch := New(s), new([]uint32)
			n := 0
			for d := Forward; d <= BackwardFilter; d++ {
				p.Lend(d, scratch)
				n = max(n, p.Scratch(d, pool.Threads()))
			}
			if *scratch = make([]uint32, max(0, n-missing)); n > 0 != isa.AMX() {
				t.Errorf("%s: %d words", s.label(), n)
			}
			for i := range *scratch {
				(*scratch)[i] = 0x7fc00000 + uint32(i)
			}
			if got := results(p); !slices.Equal(got, want) {
				t.Errorf("%s, %d words too few: other results", s.label(), missing)
			}
			if f, ok := p.filter().(*tileFilter); ok && missing == 0 && len(f.own) > 0 {
				t.Errorf("%s: memory of its own beside what was lent", s.label())
			}
		}
	}
}
