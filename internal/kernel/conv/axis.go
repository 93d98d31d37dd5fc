package conv

// axis says, for one of the two axes of a product, which taps and which coordinates of the input each coordinate of the
// output needs. Forward, the output is y and the input x; backward, the output is dx and the input dy.
//
// The taps are put in an order in which the input coordinate grows with the position of the tap, at a fixed step, phase after
// phase. A phase is a set of taps that one output coordinate may need together: all of them forward, those that are equal
// modulo the stride backward. So what an output coordinate needs is always a run of positions: a class.
type axis struct {
	order   []int // tap at each position
	phases  []phase
	classes []axisClass
}

// axisClass is the output coordinates that need the same run of taps, at the same distances.
type axisClass struct {
	pos, n int   // positions of the taps: pos to pos+n; n may be 0
	phase  phase // to which they belong
	step   int   // input coordinates from one tap to the next
	outs   []int // output coordinates, ascending
	ins    []int // for each, the input coordinate at the first tap
}

// phase is positions lo to lo+n.
type phase struct{ lo, n int }

// newAxis builds the table. in(o, k) is the input coordinate that output coordinate o meets at tap k, if there is one.
func newAxis(outs, taps, phases, step int, backward bool, in func(o, k int) (int, bool)) axis {
	var a axis
	for ph := range phases {
		lo := len(a.order)
		for k := ph; k < taps; k += phases {
			a.order = append(a.order, k)
		}
		run := a.order[lo:]
		if backward {
			for i, j := 0, len(run)-1; i < j; i, j = i+1, j-1 {
				run[i], run[j] = run[j], run[i]
			}
		}
		a.phases = append(a.phases, phase{lo, len(run)})
	}
	find := map[[2]int]int{}
	for o := range outs {
		c := axisClass{step: step}
		first := 0
		for _, s := range a.phases {
			for p := s.lo; p < s.lo+s.n; p++ {
				i, ok := in(o, a.order[p])
				if !ok {
					continue
				}
				if c.n == 0 {
					c.pos, c.phase, first = p, s, i
				}
				c.n++
			}
		}
		key := [2]int{c.pos, c.n}
		at, ok := find[key]
		if !ok {
			at = len(a.classes)
			find[key] = at
			a.classes = append(a.classes, c)
		}
		a.classes[at].outs = append(a.classes[at].outs, o)
		a.classes[at].ins = append(a.classes[at].ins, first)
	}
	return a
}

// forwardAxis is the axis of a forward product on n coordinates of x.
func forwardAxis(n, out, k, stride, pad, dil int) axis {
	return newAxis(out, k, 1, dil, false, func(o, k int) (int, bool) {
		i := o*stride - pad + k*dil
		return i, i >= 0 && i < n
	})
}

// backwardAxis is the axis of a backward product that makes n coordinates of dx out of the given number of dy.
func backwardAxis(n, out, k, stride, pad, dil int) axis {
	g := gcd(stride, dil)
	return newAxis(n, k, min(k, stride/g), dil/g, true, func(o, k int) (int, bool) {
		i := o + pad - k*dil
		if i < 0 || i%stride != 0 {
			return 0, false
		}
		return i / stride, i/stride < out
	})
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
