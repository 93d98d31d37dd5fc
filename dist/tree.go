package dist

// Tree is the order in which n summands are added: those with numbers below the greatest power of two less than n by themselves, the others by themselves, and then the two
// sums; each by the same rule. It is the order of a tournament: neighbours in pairs, then pairs of pairs. A rank that has some summands in a row adds those that the tree puts
// together and leaves the rest to others, so the sum's bits depend on n alone.
type Tree struct{ N int }

// Range is a node of a Tree: the sum of the summands lo <= i < hi.
type Range struct{ Lo, Hi int }

// split is where a node of n > 1 summands is divided.
func split(n int) int {
	k := 1
	for 2*k < n {
		k *= 2
	}
	return k
}

// Cover is the greatest nodes that together are the summands lo <= i < hi, from left to right.
func (t Tree) Cover(lo, hi int) []Range {
	var out []Range
	var walk func(r Range)
	walk = func(r Range) {
		switch {
		case r.Hi <= lo || r.Lo >= hi:
		case r.Lo >= lo && r.Hi <= hi:
			out = append(out, r)
		default:
			m := r.Lo + split(r.Hi-r.Lo)
			walk(Range{r.Lo, m})
			walk(Range{m, r.Hi})
		}
	}
	if t.N > 0 {
		walk(Range{0, t.N})
	}
	return out
}

// Joins reports whether the tree adds the nodes a and b, in this order, to one.
func (t Tree) Joins(a, b Range) bool {
	if a.Hi != b.Lo || a.Lo >= a.Hi || b.Lo >= b.Hi {
		return false
	}
	for r := (Range{0, t.N}); r.Hi-r.Lo > 1; {
		m := r.Lo + split(r.Hi-r.Lo)
		switch {
		case r == Range{a.Lo, b.Hi}:
			return m == a.Hi
		case b.Hi <= m:
			r.Hi = m
		case a.Lo >= m:
			r.Lo = m
		default:
			return false
		}
	}
	return false
}

// Part is the share that rank (or thread) i of n has of size things: lo <= k < hi, in a row and as even as possible.
func Part(size, i, n int) (lo, hi int) { return size * i / n, size * (i + 1) / n }

// segment is Part of a sum's elements, with borders at cache lines.
func segment(size, i, n int) (lo, hi int) {
	const line = 16
	lines := (size + line - 1) / line
	lo, hi = Part(lines, i, n)
	return min(lo*line, size), min(hi*line, size)
}

// alike is the size of the nodes where each rank has one, all alike and in their order; else 0.
func alike(own [][]Range) int {
	size := 0
	for r, nodes := range own {
		if r == 0 && len(nodes) > 0 {
			size = nodes[0].Hi - nodes[0].Lo
		}
		if len(nodes) != 1 || nodes[0] != (Range{r * size, (r + 1) * size}) {
			return 0
		}
	}
	return size
}

// perfect reports whether the tree over ranks' shares is the one of recursive doubling: a power of two of ranks, each with one node, all alike.
func perfect(own [][]Range) bool { return len(own)&(len(own)-1) == 0 && alike(own) > 0 }
