package bench

import (
	"sync"

	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/internal/dl"
	"github.com/jouleml/joule/train"
)

// plugin is the backend that all works share: one connection to the devices is enough.
var plugin = sync.OnceValues(func() (*xla.Backend, error) { return xla.Open(xla.Options{}) })

// onXLA are steps on the CPU backend and, in turns with it, on XLA; there are none where no plugin is found.
func onXLA() []work {
	if !dl.Available() || len(xla.Find()) == 0 {
		return nil
	}
	var out []work
	for _, make := range []func(on ...train.Option) work{
		func(on ...train.Option) work { return cnn("train_cnn", 32, on...) },
		func(on ...train.Option) work { return cnn("train_cnn", 128, on...) },
		func(on ...train.Option) work { return cnn("infer_cnn", 32, on...) },
		func(on ...train.Option) work { return gpt(4, 128, 4, 128, 32, 96, on...) }, // the shape of char-gpt
	} {
		w := make()
		w.name, w.group, w.request, w.rival = "xla, "+w.name, "xla", nil, "joule --backend xla"
		w.rivalSide = func(threads int) (func() error, func(), error) {
			b, err := plugin()
			if err != nil {
				return nil, nil, err
			}
			return make(train.On(b)).setup(threads)
		}
		out = append(out, w)
	}
	return out
}
