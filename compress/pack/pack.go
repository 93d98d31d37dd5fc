// Package pack brings a trained model to few bytes on disk (Deep Compression, arXiv:1510.00149): weights are pruned while it learns on, those that are left share a few values, which learn on too, and bytes take their
// place. What comes out is an ordinary model that train.Model.SavePacked writes in a fraction of the bytes, by how often each value occurs.
package pack

import (
	"context"
	"errors"
	"fmt"

	"github.com/jouleml/joule/compress/prune"
	"github.com/jouleml/joule/compress/quant"
	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/train"
)

// Options say what is done, in this order.
type Options struct {
	Sparsity float64       // share of the weights of kernels that become zero, the smallest of all; 0: none
	Pattern  prune.Pattern // where zeros may stand, "" anywhere: products of matrices alone are pruned with one
	Values   int           // that the others of a kernel share; 0: as many as there are
	Int8     bool          // layers become layers of bytes (quant.Static), with one scale for all weights of a layer if they share values
	Sparse   bool          // matrices whose zeros follow a pattern are kept without them, where that is faster (prune.Sparse); not with Int8
	Rows     int           // of the products that are to be faster by it; 0: 1
	Epochs   int           // of learning on after pruning, and again after sharing; 0: 1
	Batch    int           // 0: 32
	Anneal   bool          // lower the learning rate to a hundredth over these epochs (train.Anneal)

	// Augment and Mixup change the examples that the model learns from at random (train.Augment, train.Mixup), not those that ranges are measured on.
	Augment []data.Transform
	Mixup   float64

	// Teacher, if not nil, is what the model learns from beside the labels; both must end in a softmax.
	Teacher *train.Teacher
}

// Check says what is wrong with the options.
func (o *Options) Check() error {
	if o.Epochs == 0 {
		o.Epochs = 1
	}
	if o.Batch == 0 {
		o.Batch = 32
	}
	if o.Rows == 0 {
		o.Rows = 1
	}
	if o.Pattern != "" {
		p := prune.Magnitude{Sparsity: o.Sparsity, Pattern: o.Pattern}
		if err := p.Check(); err != nil {
			return err
		}
		o.Sparsity = p.Sparsity
	}
	switch {
	case o.Sparse && o.Int8:
		return errors.New("pack: sparse products are of floats; they do not go with bytes")
	case o.Rows < 1:
		return fmt.Errorf("pack: products of %d rows; at least 1", o.Rows)
	case !(o.Sparsity >= 0 && o.Sparsity < 1):
		return fmt.Errorf("pack: the sparsity must be at least 0 and below 1, not %g", o.Sparsity)
	case o.Values < 0 || o.Values > 4095:
		return fmt.Errorf("pack: %d shared values; 1 to 4095 are possible, 15 or 31 usual", o.Values)
	case o.Epochs < 1 || o.Batch < 1:
		return fmt.Errorf("pack: %d epochs of batches of %d; both must be at least 1", o.Epochs, o.Batch)
	}
	return nil
}

// Pack does what the options say to a copy of the model, and books into l, if it is not nil, what that costs. Examples are training examples.
func Pack(ctx context.Context, m *train.Model, examples data.Dataset, o Options, l *energy.Ledger) (*train.Model, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	out := m
	var err error
	if o.Sparsity > 0 {
		if out, err = learn(ctx, out, examples, o, &prune.Magnitude{Sparsity: o.Sparsity, Pattern: o.Pattern, Global: o.Pattern == ""}, l); err != nil {
			return nil, fmt.Errorf("pack: pruning: %w", err)
		}
	}
	if o.Values > 0 {
		if out, err = learn(ctx, out, examples, o, &prune.Shared{Values: o.Values}, l, train.RateFactor("codebook/*", 0.1)); err != nil {
			return nil, fmt.Errorf("pack: sharing: %w", err)
		}
	}
	if o.Sparse {
		if out, _, err = prune.Sparse(out, o.Rows); err != nil {
			return nil, err
		}
	}
	if o.Int8 {
		if out, _, err = quant.Static(ctx, out, examples, quant.Options{PerTensor: o.Values > 0, Correct: true}); err != nil {
			return nil, fmt.Errorf("pack: %w", err)
		}
	}
	return out, nil
}

// learn trains a copy of the model on with a wrapper, whose values it then makes permanent.
func learn(ctx context.Context, m *train.Model, ds data.Dataset, o Options, w interface {
	train.Wrapper
	train.Callback
}, l *energy.Ledger, more ...train.Option) (*train.Model, error) {
	opts := append(more, train.Wrapped(w))
	if o.Teacher != nil {
		opts = append(opts, train.Distil(*o.Teacher))
	}
	out, err := m.With(m.Net, opts...)
	if err != nil {
		return nil, err
	}
	if err := copyParams(out, m); err != nil {
		return nil, err
	}
	a, err := out.StartAccount(nil)
	if err != nil {
		return nil, err
	}
	calls := []train.Callback{w}
	if o.Anneal {
		calls = append(calls, &train.Anneal{})
	}
	if _, err := out.Fit(ctx, ds, train.Epochs(o.Epochs), train.BatchSize(o.Batch), train.Callbacks(calls...), train.Augment(o.Augment...), train.Mixup(o.Mixup)); err != nil {
		return nil, err
	}
	spent, err := a.Ledger()
	if err != nil {
		return nil, err
	}
	if l != nil {
		l.Merge(spent)
	}
	if err := out.Merge(); err != nil {
		return nil, err
	}
	plain, err := m.With(m.Net) // without the teacher
	if err != nil {
		return nil, err
	}
	return plain, copyParams(plain, out)
}

// copyParams gives a model the parameters of another one of the same layers.
func copyParams(to, from *train.Model) error {
	for _, p := range from.Params() {
		v, err := from.State().Get(p.Name)
		if err != nil {
			return err
		}
		if err := to.State().Set(p.Name, v); err != nil {
			return err
		}
	}
	return nil
}
