package train

import (
	"context"
	"fmt"

	"github.com/jouleml/joule/backend"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/tensor"
)

// snapshot is the state of the model at the beginning of an epoch (or of a resumed session). When a loss comes out as no number, the
// epoch is run again from there, which gives the same bits, up to the step that failed, and that step with every value looked at.
type snapshot struct {
	vars     []*tensor.Tensor
	progress Progress
}

func (f *fit) snapshot() error {
	s := &snapshot{progress: f.p}
	for _, v := range f.m.state.Vars() {
		t, err := f.m.state.Get(v.Name)
		if err != nil {
			return err
		}
		s.vars = append(s.vars, t)
	}
	f.snap = s
	return nil
}

// diverged finds where a loss that is not finite arose. The model is left as it was before the step.
func (f *fit) diverged(bad *data.Batch, loss float64) error {
	at := data.Position{Epoch: bad.Epoch, Step: bad.Step}
	what := fmt.Errorf("train: the loss is %v at epoch %d, step %d", loss, at.Epoch+1, at.Step+1)
	const remedy = "try a lower learning rate, clip gradients, or look for bad values in the data"
	for i, v := range f.m.state.Vars() {
		if err := f.m.state.Set(v.Name, f.snap.vars[i]); err != nil {
			return err
		}
	}
	p := f.snap.progress
	if err := f.loader.Seek(p.Position); err != nil {
		return fmt.Errorf("%w; %s", what, remedy)
	}
	for {
		b, err := f.loader.Next(context.Background())
		if err != nil {
			return fmt.Errorf("%w; %s", what, remedy)
		}
		rate := f.m.opt.Schedule.At(p.Updates) * f.p.Factor
		k := train
		if n := int64(f.m.accumulate); n > 1 && (p.Steps+1)%n != 0 {
			k = gather
		}
		if b.Epoch == at.Epoch && b.Step == at.Step {
			g, _, err := f.m.graph(programKey{k, b.N})
			if err != nil {
				return err
			}
			e, err := f.m.backend.Compile(g, f.m.state, backend.Options{Threads: f.m.threads, StopAtNaN: true})
			if err != nil {
				return err
			}
			probe := &program{key: programKey{k, b.N}, g: g, exec: e, out: backend.NewOutputs(g), in: make([]*tensor.Tensor, len(g.Inputs()))}
			probe.in[len(probe.in)-1] = tensor.New(probe.g.Inputs()[len(probe.in)-1].DType())
			if err := probe.run(b.X, b.Y, rate); err != nil {
				return fmt.Errorf("%w: %w; %s", what, err, remedy)
			}
			return fmt.Errorf("%w; %s", what, remedy)
		}
		prog, err := f.m.program(k, b.N)
		if err != nil {
			return err
		}
		if err := prog.run(b.X, b.Y, rate); err != nil {
			return err
		}
		p.Steps++
		if k == train {
			p.Updates++
		}
	}
}
