package train_test

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dist"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/train"
)

// A file's model that ranks have in parts evaluates, predicts and goes on with sequences as in one process, up to rounding; a rank has its part alone of weights and of the memory of keys, and nothing of the optimizer's state.
func TestTensorLoads(t *testing.T) {
	ds := phrases(t, 42, false)
	for name, net := range map[string]func() (*nn.Model, error){"untied": untied, "tied": sharedTable} {
		t.Run(name, func(t *testing.T) {
			made, err := net()
			if err != nil {
				t.Fatal(err)
			}
			one, err := train.Compile(made, ds.Spec(), optim.AdamW(optim.Rate(0.05)), train.SparseCategorical(train.Ignore(-1)), train.Threads(1), train.Seed(3), train.Accuracy, train.Perplexity)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := one.Fit(context.Background(), ds, train.Epochs(3), train.BatchSize(16)); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			plain, packed := filepath.Join(dir, "plain.safetensors"), filepath.Join(dir, "packed.safetensors")
			if err := one.Save(plain); err != nil {
				t.Fatal(err)
			}
			if err := one.SavePacked(packed); err != nil {
				t.Fatal(err)
			}
			logs, err := one.Evaluate(context.Background(), ds, 4)
			if err != nil {
				t.Fatal(err)
			}
			predicted, err := one.Predict(context.Background(), ds, 4)
			if err != nil {
				t.Fatal(err)
			}
			tokens, scores := goOn(t, one)
			for _, file := range []string{plain, packed} {
				for _, n := range []struct{ ranks, tensor int }{{2, 2}, {4, 2}} {
					allRanks(t, n.ranks, func(comm *dist.Comm) error {
						m, err := train.Load(file, train.Fixed(), train.Threads(1), train.Across(train.Parallel{Comm: comm, Tensor: n.tensor}))
						if err != nil {
							return err
						}
						if m.OptimizerBytes() != 0 || m.ParameterBytes() > one.ParameterBytes()*6/10 {
							return fmt.Errorf("a rank has %d bytes of parameters of %d, and %d of an optimizer", m.ParameterBytes(), one.ParameterBytes(), m.OptimizerBytes())
						}
						got, err := m.Evaluate(context.Background(), ds, 4)
						if err != nil {
							return err
						}
						for i, l := range got {
							if !(math.Abs(l.Value-logs[i].Value) <= 5e-5*max(1, l.Value)) {
								return fmt.Errorf("%v, in one process %v", got, logs)
							}
						}
						y, err := m.Predict(context.Background(), ds, 4)
						if err != nil {
							return err
						}
						for i := range y.Len() {
							if !(math.Abs(y.At(i)-predicted.At(i)) <= 5e-5) {
								return fmt.Errorf("prediction %d: %v, in one process %v", i, y.At(i), predicted.At(i))
							}
						}
						if y, err = m.PredictBatch(tensor.New(dtype.I32, 1, 5)); err != nil || y.Len() != 5*vocabulary {
							return fmt.Errorf("%v: %w", y, err)
						}
						own, last := goOn(t, m)
						if !slices.Equal(own, tokens) {
							return fmt.Errorf("it goes on with %v, in one process with %v", own, tokens)
						}
						for i, v := range last {
							if !(math.Abs(float64(v-scores[i])) <= 1e-4) {
								return fmt.Errorf("score %d: %v, in one process %v", i, v, scores[i])
							}
						}
						for _, v := range m.State().Vars() {
							if nn.Cached(v.Name) && v.Type.Shape[2] != 1 { // one of two heads
								return fmt.Errorf("%s is %v", v.Name, v.Type)
							}
						}
						if _, err := m.Fit(context.Background(), ds); err == nil {
							return fmt.Errorf("a model for prediction alone is trained")
						}
						return nil
					})
				}
			}
			// Of a model that is to be trained weights are in parts, and so is all else.
			allRanks(t, 2, func(comm *dist.Comm) error {
				m, err := train.Load(plain, train.Threads(1), train.Across(train.Parallel{Comm: comm, Tensor: 2}))
				if err != nil {
					return err
				}
				if _, err := m.Decoder(1, 5); err == nil || !strings.Contains(err.Error(), "Assemble") {
					return fmt.Errorf("a part of the model goes on by itself: %v", err)
				}
				_, err = m.Evaluate(context.Background(), ds, 4)
				return err
			})
		})
	}
}

// goOn are the most probable words after two prompts, and the last scores.
func goOn(t *testing.T, m *train.Model) ([]int32, []float32) {
	t.Helper()
	d, err := m.Decoder(2, 30, train.TopTokens(2))
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	scores, err := d.FeedEach([][]int32{{5, 600, 3, 4, 5, 6, 7, 8, 9}, {1, 0, 33}})
	var out []int32
	for range 8 {
		if err != nil {
			t.Error(err)
			return nil, nil
		}
		_, top := d.Top()
		out = append(out, top.I32()...)
		scores, err = d.Feed([]int32{top.I32()[0], top.I32()[2]})
	}
	if err == nil {
		err = d.Reorder([]int{1, 1})
	}
	if err == nil {
		scores, err = d.Feed([]int32{7, 8})
	}
	if err != nil {
		t.Error(err)
		return nil, nil
	}
	return out, slices.Clone(scores.F32())
}

// A file that has not what its model is described to have is told by each rank by itself, before anything is asked of another.
func TestTensorLoadsDamaged(t *testing.T) {
	net, err := untied()
	if err != nil {
		t.Fatal(err)
	}
	one, err := train.Compile(net, phrases(t, 4, false).Spec(), optim.SGD(0, false), train.SparseCategorical(train.Ignore(-1)), train.Seed(3))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "model.safetensors")
	if err := one.SavePlain(path); err != nil {
		t.Fatal(err)
	}
	for want, damage := range map[string]func(s *checkpoint.State, at int){
		"the weights of dense/kernel are missing": func(s *checkpoint.State, at int) { s.Tensors = slices.Delete(s.Tensors, at, at+1) },
		`"dense/kernel" is f32[601 8] in the file, but f32[8 601] in the model that it describes`: func(s *checkpoint.State, at int) {
			s.Tensors[at].Value = tensor.New(dtype.F32, vocabulary, 8)
		},
	} {
		s, err := checkpoint.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		damage(s, slices.IndexFunc(s.Tensors, func(n safetensors.Named) bool { return n.Name == "dense/kernel" }))
		bad := filepath.Join(t.TempDir(), "bad.safetensors")
		if err := checkpoint.Save(bad, s); err != nil {
			t.Fatal(err)
		}
		allRanks(t, 2, func(comm *dist.Comm) error {
			_, err := train.Load(bad, train.Fixed(), train.Across(train.Parallel{Comm: comm, Tensor: 2}))
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "bad.safetensors") {
				return fmt.Errorf("the error is %v, not %q", err, want)
			}
			return nil
		})
	}
}
