// Package nearest finds the known name that a mistyped one most likely meant.
package nearest

import (
	"fmt"
	"strings"
)

// Name is the known name with the fewest edits (an insertion, a deletion, a replacement or an exchange of neighbours each count one) from
// word, letter case aside; "" when even the nearest is more than a third of its length away. The first of several equally near ones wins.
func Name(word string, known []string) string {
	best, name := 1<<30, ""
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < best && d <= max(1, (max(len(word), len(k))+1)/3) {
			best, name = d, k
		}
	}
	return name
}

// Hint is `, did you mean "name"?` for an error text, or "" when no name is near.
func Hint(word string, known []string) string {
	if n := Name(word, known); n != "" {
		return fmt.Sprintf(", did you mean %q?", n)
	}
	return ""
}

// distance is the optimal string alignment distance of two byte strings.
func distance(a, b string) int {
	if len(a) > 256 || len(b) > 256 { // the work grows with the product of the lengths
		return 1 << 20
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, before
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
