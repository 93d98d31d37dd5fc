package train

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/tensor"
)

// Stateful models: recurrent layers that go on, in each batch, from the state of the batch before (nn.Stateful). Row i of a batch must then continue row i of the one before, so Fit, Evaluate
// and Predict read the data as so many streams as a batch has examples (data.Streams). There are two sets of states for each batch size, one for training and one for all else, so that
// an evaluation between two steps leaves the training as it is. A checkpoint keeps those of training.

const (
	carryTrain = "train"
	carryInfer = "infer"
)

// carry is the word for nn.Call.Carry of a program, "" if none.
func (k programKey) carry() string {
	switch k.mode {
	case train, gather:
		return fmt.Sprint(carryTrain, k.batch)
	case evaluate, predict:
		return fmt.Sprint(carryInfer, k.batch)
	}
	return ""
}

// addOwned declares the variables of a graph that are no parameters: memories of decoders and carried states.
func (m *Model) addOwned(g *graph.Graph) error {
	for _, v := range g.Variables() {
		name := graph.NameOf(v)
		if _, carried := nn.Carried(name); carried || nn.Cached(name) {
			if err := m.state.Add(backend.Var{Name: name, Type: v.Type()}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ResetStates lets the streams of a stateful model begin anew: the next Step and PredictBatch start from zero. Fit does it before each epoch, Evaluate and Predict
// before their first batch.
func (m *Model) ResetStates() error {
	return m.resetStates("")
}

// resetStates sets carried states of words that begin so to zero.
func (m *Model) resetStates(prefix string) error {
	for _, v := range m.state.Vars() {
		if w, ok := nn.Carried(v.Name); ok && strings.HasPrefix(w, prefix) {
			if err := m.state.Set(v.Name, tensor.New(v.Type.DType, v.Type.Shape...)); err != nil {
				return err
			}
		}
	}
	return nil
}

// passOn gives the streams of a batch of one the states that row row of a batch of n has.
func (m *Model) passOn(k mode, n, row int) error {
	from, to := programKey{mode: k, batch: n}.carry(), programKey{mode: k, batch: 1}.carry()
	for _, v := range m.state.Vars() {
		w, ok := nn.Carried(v.Name)
		if !ok || w != from {
			continue
		}
		t, err := m.state.Get(v.Name)
		if err != nil {
			return err
		}
		if err := m.state.Set(strings.Replace(v.Name, from, to, 1), t.Slice(row, row+1).Clone()); err != nil {
			return err
		}
	}
	return nil
}

// eachStream runs a program over the examples of a stateful model: as streams of a batch, and what those leave over as the end of the last one, example by example.
func (m *Model) eachStream(ds data.Dataset, batch int, k mode, pass func(part data.Dataset, batch int, index []int) error) error {
	if err := m.resetStates(carryInfer); err != nil {
		return err
	}
	batch = min(batch, ds.Len())
	streams, index, err := data.Streams(ds, batch)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	if err := pass(streams, batch, index); err != nil {
		return err
	}
	var rest []int
	for i := streams.Len(); i < ds.Len(); i++ {
		rest = append(rest, i)
	}
	if len(rest) == 0 {
		return nil
	}
	if _, err := m.programOf(programKey{mode: k, batch: 1}); err != nil { // its states must be there
		return err
	}
	if err := m.passOn(k, batch, batch-1); err != nil {
		return err
	}
	tail, err := data.Subset(ds, rest)
	if err != nil {
		return fmt.Errorf("train: %w", err)
	}
	return pass(tail, 1, rest)
}
