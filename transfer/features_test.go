package transfer_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/data/labelled"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

// texts is a small set of texts of several lengths in two classes.
func texts(t *testing.T) *data.Set {
	t.Helper()
	var all []labelled.Example
	for i := range 30 {
		e := labelled.Example{Text: strings.Repeat("good day ", 1+i%5) + string(rune('a'+i)), Class: "a"}
		if i%3 == 0 {
			e = labelled.Example{Text: strings.Repeat("bad night ", 1+i%4) + string(rune('a'+i)), Class: "b"}
		}
		all = append(all, e)
	}
	k, err := labelled.Train(all, "wordpiece:80")
	if err != nil {
		t.Fatal(err)
	}
	set, err := labelled.New("x", all[:24], all[24:], labelled.Config{Tokenizer: k, Length: 16})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func classifier(t *testing.T, set *data.Set, opts ...train.Option) *train.Model {
	t.Helper()
	tokens, length := nn.InputOf("tokens", set.Spec().Inputs[0].DType, 16), nn.InputOf("length", set.Spec().Inputs[1].DType)
	x := nn.Embedding(80, 8).Named("words").On(tokens)
	x = nn.TransformerBlock(2).Named("block").On(x, length)
	x = nn.GlobalAveragePool1D().Named("pooled").On(x, length)
	x = nn.Dropout(0.3).On(x)
	net, err := nn.Functional([]*nn.Value{tokens, length}, []*nn.Value{nn.Dense(2, nn.Softmax).Named("head").On(x)})
	if err != nil {
		t.Fatal(err)
	}
	m, err := train.Compile(net, set.Spec(), optim.Adam(optim.Rate(0.01)), train.SparseCategoricalCrossentropy, append([]train.Option{train.Accuracy, train.Threads(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A head that is trained on features, computed once, ends as it does on top of frozen layers that compute in every step; the file is read again, and not for other weights or data.
func TestFeatures(t *testing.T) {
	set := texts(t)
	ctx := context.Background()
	cache := t.TempDir()
	frozen := []train.Option{train.Freeze("*"), train.Unfreeze("head")}
	m := classifier(t, set, frozen...)
	d, err := m.Divide()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(d.Head.Params()); n != 2 || len(d.Kept) != 0 {
		t.Errorf("the head has %d parameters and takes inputs %v", n, d.Kept)
	}
	r, err := transfer.Features(ctx, d, set.Train, 5, cache)
	if err != nil || !r.Computed {
		t.Fatalf("%+v, %v", r, err)
	}
	again, err := transfer.Features(ctx, d, set.Train, 5, cache)
	if err != nil || again.Computed || again.Path != r.Path {
		t.Errorf("the file is not read again: %+v, %v", again, err)
	}
	test, err := transfer.Features(ctx, d, set.Test, 5, cache)
	if err != nil {
		t.Fatal(err)
	}
	logs, err := d.Head.Evaluate(ctx, test.Data, 4)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.Evaluate(ctx, set.Test, 4)
	if err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if math.Abs(logs[i].Value-want[i].Value) > 1e-5 {
			t.Errorf("%s of the head %g, of the whole %g", want[i].Name, logs[i].Value, want[i].Value)
		}
	}
	if _, err := d.Head.Fit(ctx, r.Data, train.Epochs(3), train.BatchSize(6), train.Validate(test.Data)); err != nil {
		t.Fatal(err)
	}
	if err := m.Join(d); err != nil {
		t.Fatal(err)
	}
	a, err := m.State().Get("head/kernel")
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Head.State().Get("head/kernel")
	if err != nil || !slices.Equal(a.F32(), b.F32()) {
		t.Errorf("the head's weights are not the whole's: %v", err)
	}
	other := classifier(t, set, append(frozen, train.Seed(9))...)
	od, err := other.Divide()
	if err != nil {
		t.Fatal(err)
	}
	if or, err := transfer.Features(ctx, od, set.Train, 5, cache); err != nil || !or.Computed {
		t.Errorf("features of other weights: %+v, %v", or, err)
	}
	// A damaged file is made again; a training that is stopped leaves none.
	raw, err := os.ReadFile(r.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{raw[:len(raw)/2], raw[:10], append(slices.Clone(raw[:len(raw)-40]), make([]byte, 40)...)} {
		if err := os.WriteFile(r.Path, bad, 0o666); err != nil {
			t.Fatal(err)
		}
		if r, err := transfer.Features(ctx, d, set.Train, 5, cache); err != nil || !r.Computed {
			t.Errorf("a damaged file: %+v, %v", r, err)
		}
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	empty := t.TempDir()
	if _, err := transfer.Features(stopped, d, set.Train, 5, empty); err == nil {
		t.Error("a stopped computation ends without an error")
	}
	if left, _ := filepath.Glob(filepath.Join(empty, "*")); len(left) != 0 {
		t.Errorf("it leaves %v", left)
	}
}

// What a teacher says is kept in the same way, for batches of several sizes.
func TestPredictions(t *testing.T) {
	set := texts(t)
	ctx := context.Background()
	teacher := classifier(t, set)
	r, err := transfer.Predictions(ctx, teacher, set.Train, 7, t.TempDir())
	if err != nil || !r.Computed {
		t.Fatalf("%+v, %v", r, err)
	}
	want, err := teacher.Predict(ctx, set.Train, 7)
	if err != nil {
		t.Fatal(err)
	}
	x, y := r.Data.Spec().Tensors(2)
	for i := 0; i < set.Train.Len(); i += 2 { // also of batches that had to be filled up
		if err := r.Data.Fill([]int{i, i + 1}, x, y); err != nil {
			t.Fatal(err)
		}
		for k, got := range y[1].F32() {
			if want := want.F32()[2*i+k]; math.Abs(float64(got-want)) > 1e-6 {
				t.Errorf("example %d: %v, want %v", i+k/2, got, want)
			}
		}
	}
	student := classifier(t, set, train.Distil(train.Teacher{Cached: true, Temperature: 2, Weight: 0.5}))
	if _, err := student.Fit(ctx, r.Data, train.Epochs(2), train.BatchSize(6), train.Validate(set.Test)); err != nil {
		t.Error(err)
	}
}

func TestDivideMistakes(t *testing.T) {
	set := texts(t)
	for want, opts := range map[string][]train.Option{
		"has no frozen layers":           {train.Freeze("head")},
		"cannot be divided: the teacher": {train.Freeze("*"), train.Unfreeze("head"), train.Distil(train.Teacher{Self: true, Temperature: 1, Weight: 1})},
	} {
		if _, err := classifier(t, set, opts...).Divide(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}
