package nn_test

import (
	"fmt"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
)

// The network of the main example. The shape of its input comes from the data.
func ExampleSequential() {
	model := nn.Sequential(
		nn.Conv2D(32, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Conv2D(64, 3, nn.ReLU), nn.MaxPool2D(2),
		nn.Flatten(), nn.Dense(128, nn.ReLU), nn.Dense(10, nn.Softmax),
	)
	d, err := model.Describe([]graph.Type{graph.T(dtype.F32, 28, 28, 1)})
	fmt.Println(d, err)
	// Output:
	// Model: "sequential"
	// Layer (type)                    Output Shape        Param #      FLOPs
	// ----------------------------------------------------------------------
	// conv2d (Conv2D)                 (None, 26, 26, 32)      320    432,640
	// max_pooling2d (MaxPooling2D)    (None, 13, 13, 32)        0     21,632
	// conv2d_1 (Conv2D)               (None, 11, 11, 64)   18,496  4,476,032
	// max_pooling2d_1 (MaxPooling2D)  (None, 5, 5, 64)          0      6,400
	// flatten (Flatten)               (None, 1600)              0          0
	// dense (Dense)                   (None, 128)         204,928    409,856
	// dense_1 (Dense)                 (None, 10)            1,290      2,620
	// Total params: 225,034 (879.04 KB)
	// Trainable params: 225,034 (879.04 KB)
	// Non-trainable params: 0 (0.00 B)
	// FLOPs for one example: 5,349,180
	//  <nil>
}

// Values are applied to layers: a residual block, a branch, and a join.
func ExampleFunctional() {
	image := nn.Input(32, 32, 3)
	x := nn.Conv2D(16, 3, nn.Same, nn.ReLU).On(image)

	y := nn.Conv2D(16, 3, nn.Same, nn.NoBias()).On(x)
	y = nn.BatchNormalization().On(y)
	y = nn.Activate(nn.ReLU).On(nn.Add().On(x, y)) // residual

	a := nn.GlobalAveragePool2D().On(y) // branches
	b := nn.GlobalMaxPool2D().On(y)
	out := nn.Dense(10, nn.Softmax).On(nn.Concatenate().On(a, b))

	model, err := nn.Functional([]*nn.Value{image}, []*nn.Value{out})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range model.Layers() {
		fmt.Println(l.Name())
	}
	// Output:
	// conv2d
	// conv2d_1
	// batch_normalization
	// add
	// activation
	// global_average_pooling2d
	// global_max_pooling2d
	// concatenate
	// dense
}

// A layer that is applied twice has one set of parameters: a Siamese network.
func ExampleLayer_On() {
	left, right := nn.Input(64), nn.Input(64)
	embed := nn.Dense(16, nn.Tanh).Named("embed")
	same := nn.Dense(1, nn.Sigmoid).On(nn.Multiply().On(embed.On(left), embed.On(right)))
	model, err := nn.Functional([]*nn.Value{left, right}, []*nn.Value{same})
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := model.Describe([]graph.Type{graph.T(dtype.F32, 64), graph.T(dtype.F32, 64)})
	fmt.Println(d.Params(), d.Layers[0].Name, "is applied", d.Layers[0].Uses, "times", err)
	// Output: 1057 embed is applied 2 times <nil>
}

// Layers can be made from their class and configuration, as in a saved model; mistakes are explained.
func ExampleLayerOf() {
	l, err := nn.LayerOf("Conv2D", "first", []byte(`{"filters": 8, "kernel_size": 3, "padding": "same"}`))
	fmt.Println(l.Name(), string(l.Config()), err)
	_, err = nn.LayerOf("Conv2D", "first", []byte(`{"filter": 8}`))
	fmt.Println(err)
	// Output:
	// first {"filters":8,"kernel_size":[3],"strides":[1],"padding":"same","dilation_rate":[1],"groups":1,"kernel_initializer":"glorot_uniform","use_bias":true,"bias_initializer":"zeros"} <nil>
	// nn: layer first (Conv2D): unknown field "filter"; did you mean "filters"? (known: filters, kernel_size, strides, padding, dilation_rate, groups, kernel_initializer, activation, use_bias, bias_initializer)
}
