package nn

import (
	"fmt"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/op"
)

func init() {
	classes["Dropout"] = func() kind { return &dropout{Rate: 0.5} }
}

type dropout struct {
	Rate float64 `json:"rate"`
}

// Dropout sets a random share of elements to zero in training and scales the others by 1/(1-rate), so that their expected value stays (Srivastava
// et al., JMLR 15, 2014). Otherwise it does nothing.
func Dropout(rate float64) *Layer { return layer("Dropout", &dropout{rate}, nil) }

func (d *dropout) check() error {
	if !(d.Rate >= 0 && d.Rate < 1) {
		return fmt.Errorf("rate must be in [0, 1), not %g", d.Rate)
	}
	return nil
}

func (d *dropout) call(c *Call, x []*graph.Node) *graph.Node {
	in := only(c, x)
	if !c.Training || d.Rate == 0 {
		return in
	}
	u := c.Uniform(in.Shape()...)
	return op.Select(op.Ge(u, op.Like(u, d.Rate)), op.Mul(in, op.Like(in, 1/(1-d.Rate))), op.Full(c.G, in.Type(), 0))
}
