package nn_test

import (
	"math"
	"strings"
	"testing"

	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/backend/ref"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
)

// What a PointerGenerator gives is the logarithm of the mixture that its formula says: probabilities of choosing and of copying, of tokens that stand in several places, of none that
// stand behind the end, and nothing copied of a text that is empty.
func TestPointerGenerator(t *testing.T) {
	const batch, time, vocabulary, width, positions, memory, dim = 3, 2, 6, 5, 4, 3, 2
	types := in(f32(time, vocabulary), f32(time, width), f32(positions, memory), i32(positions), i32())
	b := must(newBench(nn.PointerGenerator(dim).Named("copy"), types, batch, false, false))
	tokens, lengths := []int32{2, 5, 2, 1, 4, 4, 4, 4, 0, 1, 2, 3}, []int32{3, 4, 0}
	copy(b.in[3].I32(), tokens)
	copy(b.in[4].I32(), lengths)
	product := func(x []float64, param string, out int) []float64 {
		w, y := b.vars["copy/"+param], make([]float64, out)
		for i, v := range x {
			for k := range y {
				y[k] += v * w.At(i*out+k)
			}
		}
		return y
	}
	row := func(k, i, n int) []float64 {
		out := make([]float64, n)
		for j := range out {
			out[j] = b.in[k].At(i*n + j)
		}
		return out
	}
	softmax := func(x []float64) []float64 {
		sum, out := 0.0, make([]float64, len(x))
		for i, v := range x {
			out[i] = math.Exp(v)
			sum += out[i]
		}
		for i := range out {
			out[i] /= sum
		}
		return out
	}
	var want []float64
	for e := range batch {
		for s := range time {
			state := row(1, e*time+s, width)
			q := product(state, "query/kernel", dim)
			var score, weight []float64
			for p := range int(lengths[e]) {
				m := row(2, e*positions+p, memory)
				k := product(m, "key/kernel", dim)
				score = append(score, (q[0]*k[0]+q[1]*k[1])/math.Sqrt(dim))
				weight = append(weight, product(m, "context/kernel", 1)[0])
			}
			a := softmax(score)
			z := product(state, "gate/kernel", 1)[0] + b.vars["copy/gate/bias"].At(0)
			for p := range a {
				z += a[p] * weight[p]
			}
			c := 1 / (1 + math.Exp(-z))
			if lengths[e] == 0 {
				c = 0
			}
			p := softmax(row(0, e*time+s, vocabulary))
			for i := range p {
				p[i] *= 1 - c
			}
			for i := range a {
				p[tokens[e*positions+i]] += c * a[i]
			}
			want = append(want, p...)
		}
	}
	for name, run := range map[string]func() float64{
		"reference": func() float64 { return worst(t, must2(b.run(ref.Backend{})), want) },
		"cpu":       func() float64 { return worst(t, must2(b.run(cpu.Backend{})), want) },
	} {
		if d := run(); !(d < 2e-6) {
			t.Errorf("%s: a probability differs by %g", name, d)
		}
	}
}

func must2[T, U any](v T, _ U, err error) T { return must(v, err) }

// worst is the greatest difference between e^got and want.
func worst[T interface {
	At(i int) float64
	Len() int
}](t *testing.T, got []T, want []float64) float64 {
	t.Helper()
	if got[0].Len() != len(want) {
		t.Fatalf("%d numbers, want %d", got[0].Len(), len(want))
	}
	d := 0.0
	for i, w := range want {
		d = max(d, math.Abs(math.Exp(got[0].At(i))-w))
	}
	return d
}

func TestPointerGeneratorSaysWhatIsWrong(t *testing.T) {
	scores, states, memory, tokens := f32(3, 8), f32(3, 5), f32(4, 6), i32(4)
	for want, c := range map[string]struct {
		dim int
		in  []graph.Type
	}{
		"given 3 operands":               {4, in(scores, states, memory)},
		"tokens i32 [batch positions]":   {4, in(scores, states, memory, f32(4))},
		"scores of 3 steps and states":   {4, in(scores, f32(2, 5), memory, tokens)},
		"4 positions and 5 tokens":       {4, in(scores, states, memory, i32(5))},
		"lengths i32 [batch]":            {4, in(scores, states, memory, tokens, i32(4))},
		"key_dim must be":                {0, in(scores, states, memory, tokens)},
		"more than can be numbered":      {4, in(f32(1<<10, 1<<21), f32(1<<10, 5), memory, tokens)},
		"scores [batch time vocabulary]": {4, in(graph.T(dtype.F32, 8), states, memory, tokens)},
	} {
		if _, err := newBench(nn.PointerGenerator(c.dim), c.in, 1, false, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, not %v", want, err)
		}
	}
}
