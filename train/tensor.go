package train

import (
	"fmt"

	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/op"
)

// Tensor parallelism: Tensor ranks in a row have the same examples, and each computes its part of the layers that nn.Split splits. The loss of a rank counts for 1/Tensor of it, so that losses
// and gradients of all ranks add up to those of the batch, as they do where each rank has examples of its own: nothing else of a step need know.

// copies is how many ranks have the same examples.
func (p *Parallel) copies() int { return max(1, p.Tensor) }

// checkTensor reports settings that do not go together with layers that are split.
func (p *Parallel) checkTensor(m *Model) error {
	n, t := p.ranks(), p.Tensor
	switch {
	case t < 0:
		return fmt.Errorf("train: %d ranks cannot compute together", t)
	case t <= 1:
		return nil
	case n%t != 0:
		return fmt.Errorf("train: groups of %d ranks that compute together (tensor parallelism) do not divide %d ranks: start a multiple of %d", t, n, t)
	case p.Shards != 0 && p.Shards != n:
		return fmt.Errorf("train: tensor parallelism needs as many shards as ranks, not %d on %d", p.Shards, n)
	case p.Local > 1:
		return fmt.Errorf("train: tensor parallelism cannot be used with %d local steps, in which ranks do not wait for each other", p.Local)
	case m.teacher != nil || m.operand() != nil:
		return fmt.Errorf("train: tensor parallelism splits what a teacher or rounded operands would look at: leave out one of the two")
	case m.backend.Name() != "cpu" && m.backend.Name() != "ref":
		return fmt.Errorf("train: tensor parallelism over processes is the CPU backend's; backend %s shares work out to devices of its own (--devices)", m.backend.Name())
	}
	return nil
}

// together joins the ranks that compute the same examples, and finds out whether there is anything to split.
func (g *group) together() error {
	if g.copies() == 1 {
		return nil
	}
	first := g.rank() / g.Tensor * g.Tensor
	members := make([]int, g.Tensor)
	for i := range members {
		members[i] = first + i
	}
	c, err := g.Comm.Sub(members, channelTensor)
	if err != nil {
		return err
	}
	g.split = &nn.Split{Rank: g.rank() - first, Of: g.Tensor, Group: &op.Group{Name: "tensor", Join: c}}
	g.m.split = g.split
	if _, _, err := g.m.graph(programKey{mode: shard, batch: 1}); err != nil {
		return err
	}
	if len(g.split.Layers) == 0 {
		return fmt.Errorf("train: no layer of this model can be split over %d ranks: it takes attention or Transformer blocks of which heads and hidden units are multiples of %d, or two Dense layers in a row of which the first has such a number of units",
			g.Tensor, g.Tensor)
	}
	return nil
}

// piece is the part of n examples that shard s has.
func (g *group) piece(n, s int) (lo, hi int) {
	return dist.Part(n, s/g.copies(), g.Shards/g.copies())
}

// groups are the ranks that a step's program joins.
func (g *group) groups() (out []*op.Group) {
	if g.norms != nil {
		out = append(out, g.norms)
	}
	if g.split != nil {
		out = append(out, g.split.Group)
	}
	return out
}

// joined is the error of a message within the program that has just run.
func (g *group) joined() error {
	for _, j := range g.groups() {
		if err := j.Err(); err != nil {
			return err
		}
	}
	return nil
}
