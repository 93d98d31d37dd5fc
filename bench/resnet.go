package bench

import (
	"fmt"

	"github.com/jouleml/joule/data"
	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/nn"
	"github.com/jouleml/joule/optim"
	"github.com/jouleml/joule/shape"
	"github.com/jouleml/joule/train"
)

// resNet18 is the network of He et al. (arXiv:1512.03385) in its usual form for pictures of 32×32: a first convolution of 3×3 without pooling, four stages of two
// blocks with 64 to 512 channels, 11.2 million parameters.
func resNet18() (*nn.Model, error) {
	image := nn.Input(32, 32, 3)
	conv := func(x *nn.Value, filters, size, stride int) *nn.Value {
		return nn.BatchNormalization().On(nn.Conv2D(filters, size, nn.Same, nn.Strides(stride), nn.NoBias(), nn.KernelInit(nn.HeNormal)).On(x))
	}
	relu := func(x *nn.Value) *nn.Value { return nn.Activate(nn.ReLU).On(x) }
	x := relu(conv(image, 64, 3, 1))
	for stage, filters := range []int{64, 128, 256, 512} {
		for block := range 2 {
			stride, around := 1, x
			if block == 0 && stage > 0 {
				stride = 2
				around = conv(x, filters, 1, 2)
			}
			y := conv(relu(conv(x, filters, 3, stride)), filters, 3, 1)
			x = relu(nn.Add().On(y, around))
		}
	}
	return nn.Functional([]*nn.Value{image}, []*nn.Value{nn.Dense(10, nn.Softmax).On(nn.GlobalAveragePool2D().On(x))})
}

// resNetFLOPs is the arithmetic of one picture's products forward.
func resNetFLOPs() float64 {
	f := 2 * 32 * 32 * 64 * 27.0
	size, in := 32.0, 64.0
	for stage, c := range []float64{64, 128, 256, 512} {
		if stage > 0 {
			size /= 2
			f += 2 * size * size * c * in // the way around
		}
		f += 2*size*size*c*9*in + 3*2*size*size*c*9*c
		in = c
	}
	return f + 2*512*10
}

func resNet(batch int) work {
	w := work{name: fmt.Sprintf("train_resnet18 batch %d", batch), group: "resnet", request: Request{"work": "train_resnet18", "batch": batch}, flops: 3 * float64(batch) * resNetFLOPs()}
	w.setup = func(threads int) (func() error, func(), error) {
		spec := data.Spec{
			Inputs:  []data.Field{{Name: "image", Shape: shape.Of(32, 32, 3), DType: dtype.F32}},
			Targets: []data.Field{{Name: "label", Shape: shape.Of(), DType: dtype.I32}}, Classes: 10,
		}
		net, err := resNet18()
		if err != nil {
			return nil, nil, err
		}
		m, err := train.Compile(net, spec, optim.SGD(0.9, false), train.SparseCategoricalCrossentropy, train.Threads(threads))
		if err != nil {
			return nil, nil, err
		}
		x, y := spec.Tensors(batch)
		random(x[0])
		for i := range y[0].I32() {
			y[0].I32()[i] = int32(i % 10)
		}
		return func() error { _, err := m.Step(x, y, 0); return err }, func() {}, nil
	}
	return w
}
