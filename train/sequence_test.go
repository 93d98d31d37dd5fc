package train_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// said is a number below 1000 in English words.
func said(n int) string {
	small := strings.Fields("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
	tens := strings.Fields("- - twenty thirty forty fifty sixty seventy eighty ninety")
	switch {
	case n < 20:
		return small[n]
	case n < 100 && n%10 == 0:
		return tens[n/10]
	case n < 100:
		return tens[n/10] + " " + small[n%10]
	case n%100 == 0:
		return small[n/100] + " hundred"
	}
	return small[n/100] + " hundred and " + said(n%100)
}

// numerals is numbers in words, character by character, with the digits that they mean: inputs words, length and the digits before, targets the digits. Each is used copies times.
func numerals(t *testing.T, ns []int) data.Dataset {
	t.Helper()
	const longest = 32
	spec := data.Spec{
		Inputs:  []data.Field{{Name: "words", Shape: shape.Of(longest), DType: dtype.I32}, {Name: "length", Shape: shape.Of(), DType: dtype.I32}, {Name: "before", Shape: shape.Of(3), DType: dtype.I32}},
		Targets: []data.Field{{Name: "digits", Shape: shape.Of(3), DType: dtype.I32}},
	}
	x, y := spec.Tensors(len(ns))
	for i, n := range ns {
		for k, c := range said(n) {
			x[0].I32()[i*longest+k] = c & 31
		}
		x[1].I32()[i] = int32(len(said(n)))
		d := []int32{int32(n / 100), int32(n / 10 % 10), int32(n % 10)}
		copy(y[0].I32()[3*i:], d)
		copy(x[2].I32()[3*i:], append([]int32{10}, d[:2]...)) // 10: the beginning
	}
	ds, err := data.FromTensors(spec, x, y)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

// An encoder and a decoder that looks at it learn to read numbers, and read those that they have never seen.
func TestAttentionDecoderReadsNumbers(t *testing.T) {
	perm := rand.New(rand.NewPCG(1, 1)).Perm(1000)
	seen, unseen := numerals(t, perm[:850]), numerals(t, perm[850:])
	for _, score := range []string{"general", "additive"} {
		t.Run(score, func(t *testing.T) {
			words, length, before := nn.InputOf("words", dtype.I32, 32), nn.InputOf("length", dtype.I32), nn.InputOf("before", dtype.I32, 3)
			var opts []nn.Option
			if score == "additive" {
				opts = append(opts, nn.AdditiveScore())
			}
			memory := nn.Bidirectional(nn.GRU(24, nn.ReturnSequences())).On(nn.Embedding(32, 12).On(words), length)
			h := nn.AttentionDecoder(nn.GRU(48), opts...).On(nn.Embedding(11, 8).On(before), memory, length)
			net, err := nn.Functional([]*nn.Value{words, length, before}, []*nn.Value{nn.Dense(10, nn.Softmax).On(h)})
			if err != nil {
				t.Fatal(err)
			}
			m, err := train.Compile(net, seen.Spec(), optim.Adam(optim.Rate(0.01), optim.GlobalClipNorm(1)), train.SparseCategoricalCrossentropy, train.Accuracy, train.Seed(1))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.Fit(context.Background(), seen, train.Epochs(9), train.BatchSize(25)); err != nil {
				t.Fatal(err)
			}
			// Greedily, one digit after another: what it wrote is what it reads.
			n := unseen.Len()
			idx := make([]int, n)
			for i := range idx {
				idx[i] = i
			}
			x, y := unseen.Spec().Tensors(n)
			if err := unseen.Fill(idx, x, y); err != nil {
				t.Fatal(err)
			}
			wrote := make([]int32, 3*n)
			for k := range 3 {
				p, err := m.PredictBatch(x...)
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					best := 0
					for d := range 10 {
						if p.At((3*i+k)*10+d) > p.At((3*i+k)*10+best) {
							best = d
						}
					}
					if wrote[3*i+k] = int32(best); k < 2 {
						x[2].I32()[3*i+k+1] = int32(best)
					}
				}
			}
			right := 0
			for i := range n {
				if fmt.Sprint(wrote[3*i:3*i+3]) == fmt.Sprint(y[0].I32()[3*i:3*i+3]) {
					right++
				}
			}
			t.Logf("%d of %d right", right, n)
			if right < n*9/10 {
				t.Errorf("%d of %d unseen numbers are read right", right, n)
			}
		})
	}
}

// What lies behind the end of a sequence changes nothing, however many layers are stacked, in results and in training.
func TestLengthsThroughStacks(t *testing.T) {
	const time = 6
	tokens, length := nn.InputOf("tokens", dtype.I32, time), nn.InputOf("length", dtype.I32)
	counted := func(l *nn.Layer, x *nn.Value, more ...*nn.Value) *nn.Value {
		return l.On(append(append([]*nn.Value{x}, more...), length)...)
	}
	embed := nn.Embedding(9, 8).On(tokens)
	for name, y := range map[string]*nn.Value{
		"recurrent": counted(nn.GlobalAveragePool1D(), counted(nn.GRU(5, nn.ReturnSequences(), nn.ResetBefore()),
			counted(nn.Bidirectional(nn.LSTM(4, nn.ReturnSequences())), counted(nn.SimpleRNN(6, nn.ReturnSequences(), nn.GoBackwards()), embed)))),
		"last state":  counted(nn.LSTM(5), counted(nn.Bidirectional(nn.GRU(4, nn.ReturnSequences()), "sum"), embed)),
		"transformer": counted(nn.GlobalMaxPool1D(), counted(nn.TransformerBlock(2), counted(nn.TransformerBlock(4, nn.KeyValueHeads(2), nn.Rotary(100)), embed))),
		"attention": nn.Flatten().On(counted(nn.AdditiveAttention(), nn.PositionEmbedding(2).On(nn.Reshape(2, 8).On(nn.Dense(16).On(counted(nn.GlobalAveragePool1D(), embed)))),
			counted(nn.TransformerBlock(2), embed))),
		"decoder": nn.Flatten().On(counted(nn.AttentionDecoder(nn.LSTM(3)), nn.Reshape(2, 4).On(counted(nn.GlobalAveragePool1D(), embed)), counted(nn.Bidirectional(nn.GRU(4, nn.ReturnSequences())), embed))),
	} {
		t.Run(name, func(t *testing.T) {
			spec := data.Spec{Inputs: []data.Field{{Name: "tokens", Shape: shape.Of(time), DType: dtype.I32}, {Name: "length", Shape: shape.Of(), DType: dtype.I32}},
				Targets: []data.Field{{Name: "y", Shape: shape.Of(), DType: dtype.I32}}, Classes: 3}
			var results [2]string
			for i, garbage := range []int32{0, 8} {
				net, err := nn.Functional([]*nn.Value{tokens, length}, []*nn.Value{nn.Dense(3, nn.Softmax).Named("head").On(y)})
				if err != nil {
					t.Fatal(err)
				}
				m, err := train.Compile(net, spec, optim.SGD(0, false), train.SparseCategoricalCrossentropy, train.Seed(5))
				if err != nil {
					t.Fatal(err)
				}
				x, y := spec.Tensors(4)
				for b, n := range []int32{6, 4, 2, 1} {
					x[1].I32()[b], y[0].I32()[b] = n, int32(b%3)
					for k := range int32(time) {
						if x[0].I32()[b*time+int(k)] = (3*k + int32(b)) % 8; k >= n {
							x[0].I32()[b*time+int(k)] = garbage
						}
					}
				}
				for range 3 {
					loss, err := m.Step(x, y, 0.1)
					if err != nil {
						t.Fatal(err)
					}
					results[i] += fmt.Sprint(loss, " ")
				}
				p, err := m.PredictBatch(x...)
				if err != nil {
					t.Fatal(err)
				}
				if results[i] += string(p.Bytes()); math.IsNaN(p.At(0)) {
					t.Fatal("the prediction is no number")
				}
			}
			if results[0] != results[1] {
				t.Error("what lies behind the end of a sequence changes the result")
			}
		})
	}
}

// A mask that comes with the data does what the setting of the same meaning does, in prediction and in training; and a key that nobody sees changes nothing.
func TestMasksThroughTraining(t *testing.T) {
	const time, batch = 7, 3
	rng := rand.New(rand.NewPCG(2, 2))
	tokens, mask := nn.InputOf("tokens", dtype.I32, time), nn.InputOf("mask", dtype.Bool, 1, time, time)
	field := func(name string, dt dtype.Type, dims ...int) data.Field {
		return data.Field{Name: name, Shape: shape.Of(dims...), DType: dt}
	}
	spec := data.Spec{Inputs: []data.Field{field("tokens", dtype.I32, time), field("mask", dtype.Bool, 1, time, time)}, Targets: []data.Field{field("next", dtype.I32, time)}, Classes: 9}
	compile := func(masked bool, opts ...nn.Option) *train.Model {
		h := nn.Embedding(9, 8).On(tokens)
		for i := range 2 {
			in := []*nn.Value{h}
			if masked {
				in = append(in, mask)
			}
			h = nn.TransformerBlock(2, opts...).Named(fmt.Sprint("block", i)).On(in...)
		}
		net, err := nn.Functional([]*nn.Value{tokens, mask}, []*nn.Value{nn.Dense(9, nn.Softmax).On(h)})
		if err != nil {
			t.Fatal(err)
		}
		m, err := train.Compile(net, spec, optim.SGD(0.9, false), train.SparseCategoricalCrossentropy, train.Seed(6))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	x, y := spec.Tensors(batch)
	for i := range x[0].I32() {
		x[0].I32()[i], y[0].I32()[i] = rng.Int32N(9), rng.Int32N(9)
	}
	for name, c := range map[string]struct {
		sees func(q, k int) bool
		opts []nn.Option
	}{
		"causal": {func(q, k int) bool { return k <= q }, []nn.Option{nn.CausalAttention()}},
		"window": {func(q, k int) bool { return k <= q && k > q-3 }, []nn.Option{nn.CausalAttention(), nn.Window(3)}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range x[1].Len() {
				x[1].Set(i, 0)
				if c.sees(i/time%time, i%time) {
					x[1].Set(i, 1)
				}
			}
			set, by := compile(false, c.opts...), compile(true)
			for step := range 4 {
				a, err := set.Step(x, y, 0.05)
				if err != nil {
					t.Fatal(err)
				}
				b, err := by.Step(x, y, 0.05)
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(a-b) > 1e-5*a {
					t.Errorf("step %d: loss %g by the setting, %g by the mask", step, a, b)
				}
			}
		})
	}
	// A mask without structure: key 4 of the first example is seen by itself alone, so other positions do not change with it.
	for i := range x[1].Len() {
		q, k := i/time%time, i%time
		x[1].Set(i, map[bool]float64{true: 1}[q == k || k != 4 && rng.IntN(2) == 0])
	}
	m := compile(true)
	before, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	before = before.Clone()
	x[0].I32()[4] = (x[0].I32()[4] + 1) % 9
	after, err := m.PredictBatch(x...)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(pos int) bool {
		return string(before.Bytes()[pos*36:][:36]) != string(after.Bytes()[pos*36:][:36])
	}
	for pos := range batch * time {
		if changed(pos) != (pos == 4) {
			t.Errorf("position %d changed: %v", pos, changed(pos))
		}
	}
}
