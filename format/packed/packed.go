// Package packed writes tensors in few bytes and reads them again without loss. Of tensors with few distinct values (weights that share a codebook, bytes, pruned weights) it keeps a table of the values and codes which
// of them stands where with a range coder, the most frequent one, which is the zero of pruned weights, first of all: so do Han, Mao & Dally (Deep Compression, arXiv:1510.00149), with Huffman codes. Of others it codes
// the bytes, those of the exponents with models, since they are alike.
package packed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/tensor"
)

// ErrFormat is wrapped by every error about bytes that are not what Encode gives.
var ErrFormat = errors.New("no packed tensor")

// How a tensor is coded.
const (
	byTable = 1
	byBytes = 2
)

const (
	// most is the number of distinct values up to which a tensor may have a table.
	most = 4096
	// perByte is how many elements a coded byte can stand for at most: see least.
	perByte = 2048
)

// Encode gives a tensor's values in few bytes. Type and shape are not among them.
func Encode(t *tensor.Tensor) []byte {
	size := t.DType().Size()
	raw := t.Bytes()
	n := t.Len()
	words := make([]uint64, n)
	for i := range words {
		for k := size - 1; k >= 0; k-- {
			words[i] = words[i]<<8 | uint64(raw[i*size+k])
		}
	}
	stride := 1
	if s := t.Shape(); len(s) > 0 {
		stride = max(1, s[len(s)-1])
	}
	values, ok := table(words)
	if !ok {
		return encodeBytes(words, size)
	}
	out := encodeTable(words, values, size, stride)
	if 16*len(values)*size > len(raw) { // a great table, for its tensor
		if b := encodeBytes(words, size); len(b) < len(out) {
			return b
		}
	}
	return out
}

// table is the distinct values, the most frequent one first and the others in order; ok is false where a table does not pay.
func table(words []uint64) (values []uint64, ok bool) {
	count := map[uint64]int{}
	for _, w := range words {
		if count[w]++; len(count) > most {
			return nil, false
		}
	}
	if len(words) == 0 {
		return nil, true
	}
	if len(count) > max(1, len(words)/3) {
		return nil, false
	}
	for v := range count {
		values = append(values, v)
	}
	slices.Sort(values)
	top := 0
	for i, v := range values {
		if count[v] > count[values[top]] {
			top = i
		}
	}
	v := values[top]
	return slices.Insert(slices.Delete(values, top, top+1), 0, v), true
}

// depthOf is the number of bits of the numbers of k values beside the most frequent one.
func depthOf(k int) int { return bits.Len(uint(max(0, k-2))) }

// context is what is known before it is decided whether a value is the most frequent one: whether the two before it and the one above it (a row before, of rows as long as the last axis) were.
func context(is []bool, i, stride int) int {
	c := 0
	for k, at := range [3]int{i - 1, i - 2, i - stride} {
		if at >= 0 && is[at] {
			c |= 1 << k
		}
	}
	return c
}

func encodeTable(words, values []uint64, size, stride int) []byte {
	out := []byte{byTable}
	out = binary.AppendUvarint(out, uint64(len(values)))
	for _, v := range values {
		for k := range size {
			out = append(out, byte(v>>(8*k)))
		}
	}
	at := map[uint64]int{}
	for i, v := range values {
		at[v] = i
	}
	e, flags, which := newEncoder(), fresh(8), newTree(depthOf(len(values)))
	is := make([]bool, len(words))
	for i, w := range words {
		k := at[w]
		is[i] = k == 0
		v := 1
		if is[i] {
			v = 0
		}
		e.bit(&flags[context(is, i, stride)], v)
		if k > 0 {
			which.put(e, k-1)
		}
	}
	return append(out, e.finish()...)
}

func encodeBytes(words []uint64, size int) []byte {
	out := []byte{byBytes}
	plain := byte(0) // planes that models do not help with
	for k := range size {
		var count [256]int
		for _, w := range words {
			count[byte(w>>(8*k))]++
		}
		h := 0.0
		for _, c := range count {
			if c > 0 {
				p := float64(c) / float64(len(words))
				h -= p * math.Log2(p)
			}
		}
		if h > 7.8 {
			plain |= 1 << k
		}
	}
	out = append(out, plain)
	e := newEncoder()
	models := make([]*tree, size)
	for k := range models {
		models[k] = newTree(8)
	}
	for _, w := range words {
		for k := size - 1; k >= 0; k-- {
			b := int(byte(w >> (8 * k)))
			if plain>>k&1 == 0 {
				models[k].put(e, b)
				continue
			}
			for i := 7; i >= 0; i-- {
				e.plain(b >> i & 1)
			}
		}
	}
	return append(out, e.finish()...)
}

// Decode reads what Encode gave for a tensor of that type and shape. Nothing is believed: sizes are checked against the number of bytes before anything is allocated.
func Decode(b []byte, dt dtype.Type, dims shape.Shape) (*tensor.Tensor, error) {
	bad := func(format string, args ...any) (*tensor.Tensor, error) {
		return nil, fmt.Errorf("packed: %w: %s", ErrFormat, fmt.Sprintf(format, args...))
	}
	if !dt.Valid() || dims.Check() != nil {
		return bad("type %v%v", dt, dims)
	}
	n, size := dims.Size(), dt.Size()
	if n/perByte > len(b) {
		return bad("%d bytes cannot stand for %d elements", len(b), n)
	}
	if len(b) < 2 {
		return bad("%d bytes", len(b))
	}
	stride := 1
	if len(dims) > 0 {
		stride = max(1, dims[len(dims)-1])
	}
	var raw []byte
	var err error
	switch b[0] {
	case byTable:
		raw, err = decodeTable(b[1:], n, size, stride)
	case byBytes:
		raw, err = decodeBytes(b[1:], n, size)
	default:
		return bad("way of coding %d", b[0])
	}
	if err != nil {
		return bad("%v", err)
	}
	t := tensor.New(dt, dims...)
	if dt == dtype.Bool && slices.ContainsFunc(raw, func(v byte) bool { return v > 1 }) {
		return bad("a truth value that is neither 0 nor 1")
	}
	copy(t.Bytes(), raw)
	return t, nil
}

func decodeTable(b []byte, n, size, stride int) ([]byte, error) {
	k, used := binary.Uvarint(b)
	if used <= 0 || k > most || k*uint64(size) > uint64(len(b)-used) || k == 0 && n > 0 {
		return nil, fmt.Errorf("a table of %d values in %d bytes", k, len(b))
	}
	values := b[used:][:int(k)*size]
	d, flags, which := newDecoder(b[used+len(values):]), fresh(8), newTree(depthOf(int(k)))
	var is []bool // grows as the input lasts
	raw := make([]byte, 0, min(n*size, 1<<20))
	for i := range n {
		at := 0
		if d.bit(&flags[context(is, i, stride)]) != 0 {
			at = which.get(d) + 1
		}
		if at >= int(k) {
			return nil, fmt.Errorf("element %d is value %d of a table of %d", i, at, k)
		}
		is = append(is, at == 0)
		raw = append(raw, values[at*size:][:size]...)
		if err := d.err(); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

func decodeBytes(b []byte, n, size int) ([]byte, error) {
	plain := b[0]
	d := newDecoder(b[1:])
	models := make([]*tree, size)
	for k := range models {
		models[k] = newTree(8)
	}
	raw := make([]byte, 0, min(n*size, 1<<20))
	word := make([]byte, size)
	for range n {
		for k := size - 1; k >= 0; k-- {
			if plain>>k&1 == 0 {
				word[k] = byte(models[k].get(d))
				continue
			}
			v := 0
			for range 8 {
				v = v<<1 | d.plain()
			}
			word[k] = byte(v)
		}
		raw = append(raw, word...)
		if err := d.err(); err != nil {
			return nil, err
		}
	}
	return raw, nil
}
