// Gomlx is a peer: GoMLX on its backend in plain Go. It speaks the protocol of peer.py: gomlx NAME THREADS, one JSON request a line, one answer a line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/gomlx/gomlx/backends"
	"github.com/gomlx/gomlx/backends/simplego"
	"github.com/gomlx/gomlx/pkg/core/graph"
	"github.com/gomlx/gomlx/pkg/core/tensors"
	"github.com/gomlx/gomlx/pkg/ml/context"
	"github.com/gomlx/gomlx/pkg/ml/layers"
	"github.com/gomlx/gomlx/pkg/ml/layers/activations"
	"github.com/gomlx/gomlx/pkg/ml/train"
	"github.com/gomlx/gomlx/pkg/ml/train/losses"
	"github.com/gomlx/gomlx/pkg/ml/train/optimizers"
)

var errNotMine = errors.New("not a work of this peer") // bench/peers.go knows this sentence

type request struct {
	Work    string
	Batch   int
	M, N, K int
	TA, TB  bool
	Iters   int `json:"iters,omitempty"`
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	os.Stdout = os.Stderr // the backend prints its settings
	threads := 1
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: gomlx NAME THREADS")
		os.Exit(2)
	}
	if _, err := fmt.Sscan(os.Args[2], &threads); err != nil {
		fmt.Fprintln(os.Stderr, "gomlx: threads:", err)
		os.Exit(2)
	}
	runtime.GOMAXPROCS(threads)
	b, err := simplego.New(fmt.Sprintf("parallelism=%d", threads))
	if err != nil {
		say(answers, map[string]any{"error": err.Error()})
		os.Exit(1)
	}
	say(answers, map[string]any{"ready": true, "name": os.Args[1], "version": version() + " (" + b.Name() + ")", "threads": threads})
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	var last request
	var step func() error
	for in.Scan() {
		var r request
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			say(answers, map[string]any{"error": err.Error()})
			continue
		}
		iters := r.Iters
		r.Iters = 0
		if step == nil || r != last {
			if step, err = prepare(b, r); err != nil {
				step = nil
				say(answers, map[string]any{"error": err.Error()})
				continue
			}
			last = r
		}
		ms := make([]float64, 0, iters)
		for range iters {
			t := time.Now()
			if err = step(); err != nil {
				break
			}
			ms = append(ms, time.Since(t).Seconds()*1e3)
		}
		if err != nil {
			say(answers, map[string]any{"error": err.Error()})
			continue
		}
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		say(answers, map[string]any{"ms": ms, "rss_bytes": u.Maxrss << 10})
	}
}

func say(e *json.Encoder, answer map[string]any) {
	if err := e.Encode(answer); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

func version() string {
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, d := range info.Deps {
			if d.Path == "github.com/gomlx/gomlx" {
				return d.Version
			}
		}
	}
	return "unknown"
}

// prepare makes the step of a request and runs it a few times. Builders of graphs panic on what the backend cannot do.
func prepare(b backends.Backend, r request) (step func() error, err error) {
	defer func() {
		if p := recover(); p != nil {
			step, err = nil, fmt.Errorf("%v", p)
		}
	}()
	switch r.Work {
	case "sgemm":
		step = product(b, r)
	case "train_cnn":
		step = training(b, r.Batch)
	case "infer_cnn":
		step = prediction(b, r.Batch)
	default:
		return nil, errNotMine
	}
	for range 3 {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return step, nil
}

func product(b backends.Backend, r request) func() error {
	left, right := []int{r.M, r.K}, []int{r.K, r.N}
	over, with := 1, 0 // the axes that the product sums over
	if r.TA {
		left, over = []int{r.K, r.M}, 0
	}
	if r.TB {
		right, with = []int{r.N, r.K}, 1
	}
	x, y := tensors.FromFlatDataAndDimensions(randoms(r.M*r.K), left...), tensors.FromFlatDataAndDimensions(randoms(r.K*r.N), right...)
	e := graph.MustNewExec(b, func(a, b *graph.Node) *graph.Node {
		return graph.DotGeneral(a, []int{over}, nil, b, []int{with}, nil)
	})
	return func() error { return run(e.Exec(x, y)) }
}

// run drops results, which a program would use here.
func run(out []*tensors.Tensor, err error) error {
	if err != nil {
		return err
	}
	for _, t := range out {
		if err := t.FinalizeAll(); err != nil {
			return err
		}
	}
	return nil
}

// logits is the main network up to its softmax.
func logits(ctx *context.Context, _ any, inputs []*graph.Node) []*graph.Node {
	x := inputs[0]
	x = activations.Relu(layers.Convolution(ctx.In("conv1"), x).Channels(32).KernelSize(3).NoPadding().Done())
	x = graph.MaxPool(x).Window(2).Done()
	x = activations.Relu(layers.Convolution(ctx.In("conv2"), x).Channels(64).KernelSize(3).NoPadding().Done())
	x = graph.MaxPool(x).Window(2).Done()
	x = graph.Reshape(x, x.Shape().Dimensions[0], -1)
	x = activations.Relu(layers.DenseWithBias(ctx.In("dense1"), x, 128))
	return []*graph.Node{layers.DenseWithBias(ctx.In("dense2"), x, 10)}
}

func images(n int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(randoms(n*28*28), n, 28, 28, 1)
}

func training(b backends.Backend, batch int) func() error {
	labels := make([]int32, batch)
	for i := range labels {
		labels[i] = int32(i % 10)
	}
	x, y := images(batch), tensors.FromFlatDataAndDimensions(labels, batch, 1)
	// The least rate that stands for none: 0 would mean the default.
	t := train.NewTrainer(b, context.New(), logits, losses.SparseCategoricalCrossEntropyLogits, optimizers.Adam().LearningRate(1e-30).Done(), nil, nil)
	return func() error { return run(t.TrainStep(nil, []*tensors.Tensor{x}, []*tensors.Tensor{y})) }
}

func prediction(b backends.Backend, batch int) func() error {
	x := images(batch)
	e := context.MustNewExec(b, context.New(), func(ctx *context.Context, x *graph.Node) *graph.Node {
		return graph.Softmax(logits(ctx, nil, []*graph.Node{x})[0])
	})
	return func() error { return run(e.Exec(x)) }
}

func randoms(n int) []float32 {
	rng, out := rand.New(rand.NewPCG(1, 2)), make([]float32, n)
	for i := range out {
		out[i] = rng.Float32() - 0.5
	}
	return out
}
