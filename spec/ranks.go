package spec

import (
	"errors"

	"github.com/jouleml/joule/dist"
)

// Ranks are settings of a training on several processes; zero values leave the choice to the command line. See train.Parallel.
//
//	ranks: {shards: 8, sums: fixed, compress: "powersgd:4"}
//	ranks: {local_steps: 20, outer_momentum: 0.9, outer_rate: 0.7}
//	ranks: {pipeline: 2, cuts: [block_2], shards: 8}
//	ranks: {zero: 2, tensor: 2, sync_batch_norm: true}
type Ranks struct {
	Shards        int
	Sums          string // fixed or any
	Compress      string
	LocalSteps    int
	OuterMomentum float64
	OuterRate     float64
	Zero          int      // stage of ZeRO: 1 shares the optimizer's state out, 2 gradients as well
	Tensor        int      // how many ranks compute the same examples together
	Pipeline      int      // how many ranks in a row hold consecutive layers each
	Cuts          []string // the layers that stages begin with
	SyncBatchNorm bool
}

func (s *Spec) ranks(r *reader) error {
	n := r.take("ranks")
	if n == nil {
		return nil
	}
	m, err := mapping(s.file, "ranks", n)
	if err != nil {
		return err
	}
	k := &s.Ranks
	if err := errors.Join(m.into("shards", &k.Shards), m.into("sums", &k.Sums), m.into("compress", &k.Compress), m.into("local_steps", &k.LocalSteps), m.into("outer_momentum", &k.OuterMomentum), m.into("outer_rate", &k.OuterRate), m.into("zero", &k.Zero), m.into("tensor", &k.Tensor), m.into("pipeline", &k.Pipeline), m.into("cuts", &k.Cuts), m.into("sync_batch_norm", &k.SyncBatchNorm)); err != nil {
		return err
	}
	if err := m.done(); err != nil {
		return err
	}
	switch {
	case k.Tensor < 0:
		return at(s.file, n, "ranks: tensor %d must not be negative", k.Tensor)
	case k.Pipeline < 0:
		return at(s.file, n, "ranks: pipeline %d must not be negative", k.Pipeline)
	case len(k.Cuts) > 0 && len(k.Cuts)+1 != k.Pipeline:
		return at(s.file, n, "ranks: cuts names %d layers that begin a stage after the first, so pipeline must be %d, not %d", len(k.Cuts), len(k.Cuts)+1, k.Pipeline)
	case k.Shards < 0 || k.LocalSteps < 0 || k.OuterRate < 0:
		return at(s.file, n, "ranks: shards, local_steps and outer_rate must not be negative")
	case k.Zero < 0 || k.Zero > 2:
		return at(s.file, n, "ranks: zero %d must be 0, 1 or 2", k.Zero)
	case k.Sums != "" && k.Sums != "fixed" && k.Sums != "any":
		return at(s.file, n, "ranks: sums %q must be fixed or any", k.Sums)
	case k.OuterMomentum < 0 || k.OuterMomentum >= 1:
		return at(s.file, n, "ranks: outer_momentum %g is not in [0, 1)", k.OuterMomentum)
	}
	if k.Compress != "" {
		if _, err := dist.ParseScheme(k.Compress); err != nil {
			return at(s.file, n, "ranks: %w", err)
		}
	}
	return nil
}
