package text

import (
	"maps"
	"slices"
)

// trie finds which of many texts a text begins with.
type trie struct {
	nodes []trieNode
	edges []trieEdge
	root  [256]int32 // the node behind the first byte; 0: none
}

type trieNode struct {
	first, count int32 // edges, by byte
	value        int32 // -1: no text ends here
}

type trieEdge struct {
	to int32
	by byte
}

// trieBuilder is a trie that grows.
type trieBuilder struct{ nodes []builderNode }

type builderNode struct {
	next  map[byte]int32
	value int32
}

func newTrieBuilder() *trieBuilder { return &trieBuilder{[]builderNode{{value: -1}}} }

func (b *trieBuilder) add(s string, value int32) {
	if s == "" {
		return
	}
	at := int32(0)
	for i := range len(s) {
		to, ok := b.nodes[at].next[s[i]]
		if !ok {
			to = int32(len(b.nodes))
			b.nodes = append(b.nodes, builderNode{value: -1})
			if b.nodes[at].next == nil {
				b.nodes[at].next = map[byte]int32{}
			}
			b.nodes[at].next[s[i]] = to
		}
		at = to
	}
	b.nodes[at].value = value
}

func (b *trieBuilder) build() *trie {
	t := &trie{nodes: make([]trieNode, len(b.nodes))}
	for i, n := range b.nodes {
		t.nodes[i] = trieNode{int32(len(t.edges)), int32(len(n.next)), n.value}
		for _, c := range slices.Sorted(maps.Keys(n.next)) {
			t.edges = append(t.edges, trieEdge{n.next[c], c})
			if i == 0 {
				t.root[c] = n.next[c]
			}
		}
	}
	return t
}

// step is the node behind at by a byte, 0 if there is none.
func (t *trie) step(at int32, c byte) int32 {
	if at == 0 {
		return t.root[c]
	}
	n := t.nodes[at]
	es := t.edges[n.first : n.first+n.count]
	if len(es) > 8 {
		lo, hi := 0, len(es)
		for lo < hi {
			m := (lo + hi) / 2
			if es[m].by < c {
				lo = m + 1
			} else {
				hi = m
			}
		}
		if lo < len(es) && es[lo].by == c {
			return es[lo].to
		}
		return 0
	}
	for _, e := range es {
		if e.by == c {
			return e.to
		}
	}
	return 0
}

// longest is the length and value of the longest text that s begins with; 0 if there is none.
func (t *trie) longest(s string) (n int, value int32) {
	at := int32(0)
	for i := range len(s) {
		if at = t.step(at, s[i]); at == 0 {
			break
		}
		if v := t.nodes[at].value; v >= 0 {
			n, value = i+1, v
		}
	}
	return n, value
}
