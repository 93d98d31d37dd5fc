package train

import (
	"context"
	"fmt"

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
	vars, err := f.m.variables()
	f.snap = &snapshot{vars, f.p}
	return err
}

// diverged finds where a loss that is not finite arose. The model is left as it was before the step.
func (f *fit) diverged(bad *data.Batch, loss float64) error {
	at := data.Position{Epoch: bad.Epoch, Step: bad.Step}
	what := fmt.Errorf("train: the loss is %v at epoch %d, step %d", loss, at.Epoch+1, at.Step+1)
	const remedy = "try a lower learning rate, clip gradients, or look for bad values in the data"
	if err := f.m.setVariables(f.snap.vars); err != nil {
		return err
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
		k, rate := f.next(&p)
		if b.Epoch == at.Epoch && b.Step == at.Step {
			probe, err := f.m.build(programKey{mode: k, batch: b.N, shapes: f.m.shapes(b.X, b.Y)}, true)
			if err != nil {
				return err
			}
			if err := probe.run(b.X, b.Y, rate); err != nil {
				return fmt.Errorf("%w: %w; %s", what, err, remedy)
			}
			return fmt.Errorf("%w; %s", what, remedy)
		}
		prog, err := f.m.program(k, b.X, b.Y)
		if err != nil {
			return err
		}
		if err := prog.run(b.X, b.Y, rate); err != nil {
			return err
		}
		p.count(k)
	}
}

// divergedShared is diverged for steps that are shared out: the weights are still as they were before the step, and every rank looks at its own shards.
func (f *fit) divergedShared(b *data.Batch, loss float64) error {
	err := fmt.Errorf("train: the loss is %v at epoch %d, step %d", loss, b.Epoch+1, b.Step+1)
	const remedy = "try a lower learning rate, clip gradients, or look for bad values in the data"
	if e := f.g.probe(b); e != nil {
		return fmt.Errorf("%w: %w; %s", err, e, remedy)
	}
	if f.m.pipe != nil {
		return fmt.Errorf("%w, in the layers or the part of the batch of another rank; %s", err, remedy)
	}
	return fmt.Errorf("%w, in another rank's part of the batch; %s", err, remedy)
}
