package dist

import (
	"fmt"
	"slices"
	"testing"
)

// Sums in blocks are the bits of the tree, for many numbers of ranks that are no powers of two and lengths down to none, in few messages.
func TestBlocks(t *testing.T) {
	for _, ranks := range []int{3, 17, 20, 23, 31, 37, 48} {
		for _, size := range []int{0, 1, 40, 3000} {
			nodes, parts := make([]Range, ranks), make([][]float32, ranks)
			for r := range ranks {
				nodes[r], parts[r] = Range{r, r + 1}, summandOf(r, size)
			}
			want := make([]float32, size)
			fold(Tree{ranks}, nodes, parts, want)
			all(t, ranks, func(c *Comm) (err error) {
				x := summandOf(c.Rank(), size)
				if ranks > ManyRanks {
					c.met = true // without messages there are no blocks
					err = c.AllReduce(x)
				} else {
					end := c.begin("a sum in blocks")
					err = c.blocks(x, x)
					end(&err)
				}
				switch {
				case err != nil:
					return err
				case !slices.Equal(x, want):
					return fmt.Errorf("%d ranks, %d numbers: other bits than the tree", ranks, size)
				case ranks == 37 && c.Stats().Messages > 20: // 36 and as many again between all pairs
					return fmt.Errorf("rank %d sends %d messages", c.Rank(), c.Stats().Messages)
				}
				return nil
			})
		}
	}
}
