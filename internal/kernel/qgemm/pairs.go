package qgemm

import "slices"

// Products of bytes with AVX2. VPMADDUBSW multiplies u8 by s8 and adds each two neighbours, in 16 bits: 32 products in the time in which widened operands have 16, but sums beyond 16 bits
// saturate. For activations up to 255 a pair of weights is safe if its positive weights add up to no more than 128 and its negative ones to no less than -128. Of weights as trained layers have them
// two to four pairs in a hundred are not, so that half of the groups of four by 16 columns have such a pair.
//
// So each group of a panel takes its four activations in the way that suits its weights. A way says which of them are pairs, and of which of them a the kernel reads 255-a, against the
// weight's negative: a·w = 255·w + (255-a)·(-w), so that a pair whose weights have one sign has two. What 255·w add up to is where the sums of the column begin. Rows are kept in all ways that the plan
// uses, and a list says where the panel's groups read them. Where no way suits, what is too much goes to a group of its own, which reads the same four again: W = W1 + W2, both safe. With too many of
// those (weights that fill their range evenly) the plan widens to 16 bits instead.

// way is how a group takes four activations: order[0] with order[1], and order[2] with order[3]; of the second of each pair, 255-a if flip has its bit (1 for the first pair, 2 for the second).
type way struct {
	order [4]uint8
	flip  uint8
}

// ways are all of them. The first is that of rows as they are.
var ways = [...]way{
	{[4]uint8{0, 1, 2, 3}, 0}, {[4]uint8{0, 2, 1, 3}, 0}, {[4]uint8{0, 3, 1, 2}, 0},
	{[4]uint8{0, 1, 2, 3}, 1}, {[4]uint8{0, 2, 1, 3}, 1}, {[4]uint8{0, 3, 1, 2}, 1},
	{[4]uint8{0, 1, 2, 3}, 2}, {[4]uint8{0, 2, 1, 3}, 2}, {[4]uint8{0, 3, 1, 2}, 2},
	{[4]uint8{0, 1, 2, 3}, 3}, {[4]uint8{0, 2, 1, 3}, 3}, {[4]uint8{0, 3, 1, 2}, 3},
}

// waySet is a set of ways, by their bits.
type waySet uint16

const allWays = waySet(1<<len(ways) - 1)

var (
	unsafeWays [4][4][2]waySet // that a pair of weights rules out if it is too great: with one sign, and with two
	turned     [4]waySet       // that turn an activation
)

func init() {
	for i, w := range ways {
		for pair := range 2 {
			a, b := w.order[2*pair], w.order[2*pair+1]
			flipped := int(w.flip >> pair & 1)
			unsafeWays[a][b][flipped] |= 1 << i
			unsafeWays[b][a][flipped] |= 1 << i
			turned[b] |= waySet(flipped) << i
		}
	}
}

// turns reports whether the way turns the activation in a place of the group.
func (w *way) turns(place int) bool { return place%2 == 1 && w.flip>>(place/2)&1 == 1 }

// bytes says for 32 bytes in the order of a row which of 16 goes where, and which bits are turned.
func (w *way) bytes() (how [2][pairBlock]uint8) {
	for j := range pairBlock {
		how[0][j] = uint8(j&^3&15) + w.order[j%4]
		if w.turns(j % 4) {
			how[1][j] = 255
		}
	}
	return how
}

const (
	pairBlock = 32  // bytes of a row that lie together in all ways
	safe      = 128 // the most that a pair of weights of one sign may add up to
)

// pairs are the weights of a plan in pairs that are safe.
type pairs struct {
	ways   []int                 // in which rows are kept; the first is 0
	how    [][2][pairBlock]uint8 // of each
	starts []int                 // of each panel's groups, and the end
	at     []int32               // of each group: where a row has what it reads
	b      []int8                // [groups, 16, 4]
	first  []int32               // [panels, 16]: where sums begin

	sets []waySet // of each group: the ways that suit
}

func (q *pairs) bytes() int { return 8*len(q.starts) + 4*len(q.at) + len(q.b) + 4*len(q.first) }

// setPairs makes the plan compute with weights b in pairs, in just so many ways or, if that is 0, as many as are fastest. If widening is faster it reports false and makes room for weights of 16 bits.
func (p *Plan) setPairs(b []int8, just int) bool {
	if p.spare == nil {
		p.spare = new(pairs)
	}
	before := 0
	if p.pairs != nil {
		before = len(p.pairs.ways)
	}
	if !p.spare.pack(b, p.K, p.N, just) {
		p.widen()
		return false
	}
	p.pairs, p.b16 = p.spare, nil
	if len(p.pairs.ways) != before {
		p.work = nil // whose memory is that of the weights before
	}
	return true
}

// widen makes the plan compute with weights of 16 bits.
func (p *Plan) widen() {
	if p.pairs != nil {
		p.pairs, p.work = nil, nil
	}
	if p.b16 == nil {
		p.b16 = make([]int16, p.wideLen())
	}
}

// wideLen is how many weights of 16 bits the plan has, if it has such and does not read patches in the image.
func (p *Plan) wideLen() int {
	return (p.N + p.width - 1) / p.width * p.groups * p.width * p.level.group()
}

// safeWays are the ways that suit weights w [4][columns].
func safeWays(w *[4][]int8) waySet {
	set := allWays
	for i := range 4 {
		for k := i + 1; k < 4; k++ {
			same, other := unsafeWays[i][k][0], unsafeWays[i][k][1]
			second := w[k][:len(w[i])]
			for j, a := range w[i] {
				switch a, b := int(a), int(second[j]); {
				case a+b > safe || a+b < -safe:
					set &^= same
				case a-b > safe || a-b < -safe:
					set &^= other
				}
			}
		}
		for _, a := range w[i] {
			if a == -128 { // has no negative
				set &^= turned[i]
			}
		}
	}
	return set
}

// Cycles of a row, about, by which ways of computing are compared: of a group of four and a panel as bytes and as 16 bits, and of 32 bytes in one way more and widened.
const (
	pairCycles, wideCycles    = 2.3, 3.0
	spreadCycles, widenCycles = 1.3, 2.0
)

var noWeights [slim]int8

// fours sets w to the weights of a group in the columns of a panel.
func fours(w *[4][]int8, b []int8, k, n, panel, group int) {
	cols := min(slim, n-panel*slim)
	for i := range w {
		if w[i] = noWeights[:cols]; 4*group+i < k {
			w[i] = b[(4*group+i)*n+panel*slim:][:cols]
		}
	}
}

// sized is a slice of n elements, s if there is room for them.
func sized[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// pack brings weights b [K, N] to safe pairs, in just so many ways or, if that is 0, as many as are fastest; it reports whether that is faster than to widen them, or asked for.
func (q *pairs) pack(b []int8, k, n, just int) bool {
	panels, groups := (n+slim-1)/slim, (k+3)/4
	q.sets = sized(q.sets, panels*groups)
	var count [allWays + 1]int // of groups by the ways that suit them
	var w [4][]int8
	for i := range q.sets {
		fours(&w, b, k, n, i/groups, i%groups)
		q.sets[i] = safeWays(&w)
		count[q.sets[i]]++
	}
	q.ways = q.ways[:0]
	blocks, suited := float64((k+pairBlock-1)/pairBlock), 0
	best := wideCycles*float64(panels*groups) + widenCycles*blocks
	keep, total := 0, 0 // ways, and groups with those that are two
	for set := waySet(0); set < allWays && (just == 0 || len(q.ways) < just); {
		next := 0 // the way that suits most of those that are left, at first that of rows as they are
		var gain [len(ways)]int
		for s, n := range count {
			for i := range gain {
				if s>>i&1 == 1 {
					gain[i] += n
				}
			}
		}
		for i := 1; set != 0 && i < len(ways); i++ {
			if gain[i] > gain[next] {
				next = i
			}
		}
		if set != 0 && gain[next] == 0 {
			break
		}
		for s := range count {
			if s>>next&1 == 1 {
				count[s] = 0
			}
		}
		set |= 1 << next
		q.ways, suited = append(q.ways, next), suited+gain[next]
		cost := pairCycles * float64(2*panels*groups-suited)
		if m := len(q.ways); m > 1 {
			cost += spreadCycles * blocks * float64(m)
		}
		if cost < best || len(q.ways) == just {
			best, total, keep = cost, 2*panels*groups-suited, len(q.ways)
		}
	}
	if keep == 0 {
		return false
	}
	q.ways, q.how = q.ways[:keep], q.how[:0]
	for _, i := range q.ways {
		q.how = append(q.how, ways[i].bytes())
	}
	q.starts, q.first = sized(q.starts, panels+1), sized(q.first, panels*slim)
	q.at, q.b = sized(q.at, total)[:0], sized(q.b, total*slim*4)
	clear(q.first)
	clear(q.b)
	for i, set := range q.sets {
		panel, group := i/groups, i%groups
		if group == 0 {
			q.starts[panel] = len(q.at)
		}
		fours(&w, b, k, n, panel, group)
		q.group(&w, set, group, q.first[panel*slim:][:slim])
	}
	q.starts[panels] = len(q.at)
	return true
}

// group adds a group with weights w, which ways of set suit, and what its sums begin with to first.
func (q *pairs) group(w *[4][]int8, set waySet, group int, first []int32) {
	for i, name := range q.ways {
		if set>>name&1 == 0 {
			continue
		}
		dst, way := q.next(group, i), &ways[name]
		for place, from := range way.order {
			turns := way.turns(place)
			for j, v := range w[from] {
				if turns {
					first[j] += 255 * int32(v)
					v = -v
				}
				dst[4*j+place] = v
			}
		}
		return
	}
	q.split(w, group)
}

// next begins a group that reads four activations in way i of the plan's, and gives its weights.
func (q *pairs) next(group, i int) []int8 {
	q.at = append(q.at, int32((group/8*len(q.ways)+i)*pairBlock+group%8*4))
	return q.b[(len(q.at)-1)*slim*4:][:slim*4]
}

// split makes two groups of weights that no way suits: what is too much for a pair is taken off its greater weight and goes to the second.
func (q *pairs) split(w *[4][]int8, group int) {
	dst, rest := q.next(group, 0), q.next(group, 0)
	for place := range 4 {
		for j, v := range w[place] {
			dst[4*j+place] = v
		}
	}
	for i := 0; i < len(dst); i += 2 {
		a, b := int(dst[i]), int(dst[i+1])
		much := max(a+b-safe, 0) + min(a+b+safe, 0)
		at := i
		if much > 0 && b > a || much < 0 && b < a {
			at++
		}
		rest[at] = int8(much)
		dst[at] -= int8(much)
	}
}

// What is computed at a time: rows that, in all ways, stay in the first cache while the panels pass, at least those of a tile, and so many columns.
const (
	pairBytes   = 32 << 10
	pairColumns = 512
)

// pairTile is the rows of a tile, and how many of them are kept.
func (p *Plan) pairTile() (rows, kept int) {
	if p.Pool {
		return 4, 1
	}
	return tileRows, tileRows
}

// pairRows is how many rows of results are computed at a time.
func (p *Plan) pairRows() int {
	rows, kept := p.pairTile()
	return kept * max(1, min(p.rows/kept, pairBytes/(rows*p.stride()*len(p.pairs.ways))))
}

// onPairs computes n results from the first on, of rows a.
func (p *Plan) onPairs(w *worker, a []uint8, first, n int) {
	rows, kept := p.pairTile()
	step, stride, ways := p.pairRows(), p.stride(), len(p.pairs.ways)
	for r := 0; r < n; r += step {
		here := min(step, n-r)
		x := a[r*rows/kept*stride:]
		if ways > 1 {
			spreadRows(w.spread, x, here*rows/kept*stride, p.pairs.how)
			x = w.spread
		}
		for lo := 0; lo < p.N; lo += pairColumns {
			cols := min(pairColumns, p.N-lo)
			width := (cols + slim - 1) / slim * slim
			for i := 0; i < here; i += kept {
				p.tilePairs(w.acc[i*width:], width, x[i*rows/kept*stride*ways:], min(rows, (here-i)*rows/kept), lo, p.Pool)
			}
			p.settle(w.acc, width, first+r, here, lo, cols)
		}
	}
}
