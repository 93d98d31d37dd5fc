package text

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// charsMap is SentencePiece's compiled rules of normalisation: a double-array trie of what is replaced (Aoe, "An efficient digital search algorithm by using a
// double-array structure", 1989, in the layout of the library Darts-clone), and the replacements, each ended by a zero byte.
type charsMap struct {
	trie []uint32
	text string
}

func parseCharsMap(b []byte) (*charsMap, error) {
	if len(b) == 0 {
		return &charsMap{}, nil
	}
	if len(b) < 4 {
		return nil, errors.New("precompiled_charsmap: it is cut off")
	}
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) || n%4 != 0 {
		return nil, fmt.Errorf("precompiled_charsmap: it says that its index has %d bytes, and %d follow", n, len(b)-4)
	}
	m := &charsMap{trie: make([]uint32, n/4), text: string(b[4+n:])}
	for i := range m.trie {
		m.trie[i] = binary.LittleEndian.Uint32(b[4+4*i:])
	}
	return m, nil
}

// find is the longest beginning of s that has a replacement; n is 0 if none has.
func (m *charsMap) find(s string) (n int, to string) {
	at := uint32(0)
	if len(m.trie) == 0 {
		return 0, ""
	}
	unit := m.trie[0]
	at ^= offset(unit)
	for i := range len(s) {
		if s[i] == 0 {
			break
		}
		at ^= uint32(s[i])
		if int(at) >= len(m.trie) {
			break
		}
		unit = m.trie[at]
		if unit&(1<<31|0xff) != uint32(s[i]) { // the label of another, or a leaf
			break
		}
		at ^= offset(unit)
		if int(at) >= len(m.trie) {
			break
		}
		if unit>>8&1 == 1 {
			v := m.trie[at] & (1<<31 - 1)
			if int(v) < len(m.text) {
				to, _, _ = strings.Cut(m.text[v:], "\x00")
				n = i + 1
			}
		}
	}
	return n, to
}

func offset(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }

// byGrapheme replaces whole graphemes of less than 6 bytes, and else each character by itself, as the tokenizers library does. A rule need not take the
// whole of what it is looked up for.
func (m *charsMap) byGrapheme(s string) string {
	if len(m.trie) == 0 {
		return s
	}
	var out strings.Builder
	out.Grow(len(s) + 8)
	one := func(c string) bool {
		n, to := m.first(c)
		if n > 0 {
			out.WriteString(to)
		}
		return n > 0
	}
	state := -1
	for len(s) > 0 {
		var g string
		if s[0] >= ' ' && s[0] < 0x7f && (len(s) == 1 || s[1] >= ' ' && s[1] < 0x7f) { // no grapheme of several characters begins here
			g, s = s[:1], s[1:]
			state = -1
		} else {
			g, s, _, state = uniseg.FirstGraphemeClusterInString(s, state)
		}
		if len(g) < 6 && one(g) {
			continue
		}
		for i, r := range g {
			c := g[i : i+utf8.RuneLen(r)]
			if !one(c) {
				out.WriteString(c)
			}
		}
	}
	return out.String()
}

// first is the shortest beginning of s that has a replacement: the first that the trie meets.
func (m *charsMap) first(s string) (n int, to string) {
	for i := 1; i <= len(s); i++ {
		if n, to := m.find(s[:i]); n > 0 {
			return n, to
		}
	}
	return 0, ""
}
