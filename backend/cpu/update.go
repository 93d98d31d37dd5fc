package cpu

import (
	"fmt"

	"github.com/jouleml/joule/internal/kernel/reduce"
	"github.com/jouleml/joule/internal/kernel/update"
	"github.com/jouleml/joule/op"
)

func init() {
	rows[op.UpdateOp] = []row{{name: "update", ok: allF32, make: makeUpdate}}
	rows[op.SumSquaresOp] = []row{{name: "sum of squares", ok: allF32, make: makeSumSquares}}
}

var updateKinds = map[string]update.Kind{"sgd": update.SGD, "adam": update.Adam, "rmsprop": update.RMSprop, "lion": update.Lion}

// makeUpdate plans the step of all parameters of a node as one pass over memory.
func makeUpdate(k *call) (string, func(), error) {
	a := k.n.Attrs().(op.UpdateAttrs)
	each, slots := a.Operands(), a.Slots()
	count := len(k.in) / each
	lens := make([]int, count)
	for i := range lens {
		lens[i] = k.in[i*each].n
		for j := range 1 + slots { // the parameter, and behind its gradient its slots
			k.mayReplace(i*(1+slots)+j, i*each+held(j))
		}
	}
	p := update.New(update.Spec{Kind: updateKinds[a.Rule], Momentum: a.Momentum, Nesterov: a.Nesterov, Beta1: a.Beta1, Beta2: a.Beta2, Rho: a.Rho, Centered: a.Centered, Epsilon: a.Epsilon}, lens)
	params := make([]update.Param, count)
	name := a.Rule
	if count > 1 {
		name = fmt.Sprintf("%s of %d parameters", a.Rule, count)
	}
	return name, func() {
		for i := range params {
			in, out := k.in[i*each:(i+1)*each], k.out[i*(1+slots):(i+1)*(1+slots)]
			for j, y := range out {
				if x := in[held(j)]; len(y.raw) > 0 && &y.raw[0] != &x.raw[0] { // the kernel works in place
					copy(y.raw, x.raw)
				}
			}
			q := &params[i]
			q.W, q.Grad = out[0].f32(), in[1].f32()
			for j := range slots {
				q.Slots[j] = out[1+j].f32()
			}
			s := in[2+slots:]
			q.Rate, q.Shrink, q.Scale = s[0].f32()[0], s[1].f32()[0], s[2].f32()[0]
		}
		p.Run(k.pool, params)
	}, nil
}

// held is the operand of a parameter that result i of it takes the place of.
func held(i int) int {
	if i == 0 {
		return 0
	}
	return 1 + i
}

func makeSumSquares(k *call) (string, func(), error) {
	lens, arrays := make([]int, len(k.in)), make([][]float32, len(k.in))
	for i, x := range k.in {
		lens[i] = x.n
	}
	p := reduce.NewSquareSum(lens)
	y := k.out[0]
	return "sum of squares", func() {
		for i, x := range k.in {
			arrays[i] = x.f32()
		}
		y.f32()[0] = float32(p.Run(k.pool, arrays))
	}, nil
}
