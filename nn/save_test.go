package nn_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/jouleml/joule/graph"
	"github.com/jouleml/joule/nn"
)

// Missing fields have the defaults of the builders, which are Keras's.
func TestDefaults(t *testing.T) {
	for _, c := range []struct {
		class, config string
		want          *nn.Layer
	}{
		{"Dense", `{"units": 3}`, nn.Dense(3)},
		{"Conv1D", `{"filters": 3, "kernel_size": [2]}`, nn.Conv1D(3, 2)},
		{"Conv2D", `{"filters": 3, "kernel_size": 2, "activation": "relu"}`, nn.Conv2D(3, 2, nn.ReLU)},
		{"Conv2DTranspose", `{"filters": 3, "kernel_size": 2}`, nn.Conv2DTranspose(3, 2)},
		{"DepthwiseConv2D", `{"kernel_size": 3}`, nn.DepthwiseConv2D(3)},
		{"MaxPooling2D", `{}`, nn.MaxPool2D(2)},
		{"AveragePooling1D", `{"strides": null}`, nn.AveragePool1D(2)},
		{"GlobalMaxPooling2D", ``, nn.GlobalMaxPool2D()},
		{"Dropout", `{"rate": 0.1}`, nn.Dropout(0.1)},
		{"BatchNormalization", `{}`, nn.BatchNormalization()},
		{"LayerNormalization", `{}`, nn.LayerNormalization()},
		{"Embedding", `{"input_dim": 4, "output_dim": 2}`, nn.Embedding(4, 2)},
		{"ZeroPadding2D", `{}`, nn.ZeroPadding2D(1)},
		{"ZeroPadding2D", `{"padding": [1, 2]}`, nn.ZeroPadding2D(1, 2)},
		{"ZeroPadding2D", `{"padding": [[1, 2], [3, 4]]}`, nn.ZeroPadding2D(1, 2, 3, 4)},
		{"UpSampling2D", `{}`, nn.UpSampling2D(2)},
		{"Concatenate", `{}`, nn.Concatenate()},
		{"LeakyReLU", `{}`, nn.LeakyReLULayer(0.3)},
		{"Softmax", `{}`, nn.SoftmaxLayer()},
	} {
		l, err := nn.LayerOf(c.class, "", json.RawMessage(c.config))
		if err != nil {
			t.Error(err)
			continue
		}
		if string(l.Config()) != string(c.want.Config()) {
			t.Errorf("%s %s is %s, want %s", c.class, c.config, l.Config(), c.want.Config())
		}
	}
}

func TestWrongConfigurations(t *testing.T) {
	for _, c := range []struct{ class, config, want string }{
		{"Conv2d", `{}`, `unknown class "Conv2d"; did you mean "Conv2D"?`},
		{"Frobnicate", `{}`, `known: Activation, Add`},
		{"Dense", `{"units": 3, "unit": 3}`, `layer here (Dense): unknown field "unit"; did you mean "units"? (known: units, kernel_initializer, activation, use_bias, bias_initializer)`},
		{"Dense", `{"units": "three"}`, `field "units": want a whole number, not "three" (fields: units`},
		{"Dense", `{"units": 2.5}`, `field "units": want a whole number, not 2.5`},
		{"Dense", `{"units": -1}`, `units must be at least 1, not -1`},
		{"Dense", `{}`, `units must be at least 1, not 0`},
		{"Dense", `{"units": 3, "use_bias": 1}`, `want true or false, not 1`},
		{"Dense", `{"units": 3, "activation": "sofmax"}`, `unknown activation "sofmax"; did you mean "softmax"?`},
		{"Dense", `{"units": 3, "kernel_initializer": "glorot"}`, `kernel_initializer: unknown initializer "glorot"`},
		{"Dense", `[3]`, `must be a JSON object`},
		{"Dense", `{"units": 3`, `must be a JSON object`},
		{"Conv2D", `{"filters": 3, "kernel_size": [1, 2, 3]}`, `kernel_size takes one number or 2, not 3`},
		{"Conv2D", `{"filters": 3}`, `kernel_size takes`},
		{"Conv2D", `{"filters": 3, "kernel_size": "a"}`, `field "kernel_size": want a whole number or a list of them, not "a"`},
		{"Conv2D", `{"filters": 3, "kernel_size": 3, "strides": 0}`, `strides must be in [1,`},
		{"Conv2D", `{"filters": 3, "kernel_size": 3, "padding": "sam"}`, `unknown padding "sam"; did you mean "same"?`},
		{"Conv2D", `{"filters": 3, "kernel_size": 3, "padding": "causal"}`, `unknown padding "causal"`},
		{"Conv2D", `{"filters": 3, "kernel_size": 3, "groups": 2}`, `3 filters cannot be cut into 2 groups`},
		{"MaxPooling2D", `{"pool_size": []}`, `pool_size takes`},
		{"MaxPooling2D", `{"pool_size": 99999999}`, `pool_size must be in`},
		{"Flatten", `{"x": 1}`, `unknown field "x" (known: none)`},
		{"Dropout", `{"rate": 1.5}`, `rate must be in [0, 1), not 1.5`},
		{"ReLU", `{"max_value": -1}`, `must not be negative`},
		{"BatchNormalization", `{"axis": 1}`, `axis must be -1`},
		{"BatchNormalization", `{"momentum": 2}`, `momentum must be in [0, 1]`},
		{"UpSampling2D", `{"interpolation": "bilinear"}`, `unknown interpolation "bilinear"`},
		{"ZeroPadding2D", `{"padding": -1}`, `padding must be in [0,`},
		{"Reshape", `{"target_shape": [-1, -1]}`, `one at most -1`},
		{"Permute", `{"dims": [0, 1]}`, `numbers 1 to 2`},
		{"RepeatVector", `{}`, `n must be in [1,`},
	} {
		_, err := nn.LayerOf(c.class, "here", json.RawMessage(c.config))
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "here") {
			t.Errorf("%s %s: want an error with %q, not: %v", c.class, c.config, c.want, err)
		}
	}
}

func TestWrongSavedModels(t *testing.T) {
	dense := `{"class": "Dense", "name": "d", "config": {"units": 1}`
	for want, data := range map[string]string{
		`unknown class "Sequentia"; did you mean "Sequential"?`: `{"class": "Sequentia", "layers": [` + dense + `}]}`,
		"has no name":                           `{"class": "Sequential", "layers": [{"class": "Dense", "config": {"units": 1}}]}`,
		`layer 0: layer d (Dense)`:              `{"class": "Sequential", "layers": [{"class": "Dense", "name": "d"}]}`,
		`layers "d" differ`:                     `{"class": "Sequential", "layers": [` + dense + `}, {"class": "Flatten", "name": "d"}]}`,
		"neither inputs nor outputs":            `{"class": "Sequential", "outputs": ["d"], "layers": [` + dense + `}]}`,
		"has no layers":                         `{"class": "Sequential", "layers": []}`,
		`layer d: unknown value "y" (known: x)`: `{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f32"}], "layers": [` + dense + `, "inputs": ["y"]}], "outputs": ["d"]}`,
		`unknown value "d" (known: x)`:          `{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f32"}], "layers": [` + dense + `, "inputs": ["d"]}], "outputs": ["d"]}`,
		`outputs: unknown value "z"`:            `{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f32"}], "layers": [` + dense + `, "inputs": ["x"]}], "outputs": ["z"]}`,
		`unknown element type "f31"`:            `{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f31"}], "outputs": ["x"]}`,
		`axis 0 is negative`:                    `{"class": "Functional", "inputs": [{"name": "x", "shape": [-2], "dtype": "f32"}], "outputs": ["x"]}`,
		`two values are named "x"`:              `{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f32"}, {"name": "x", "shape": [2], "dtype": "f32"}], "outputs": ["x"]}`,
		"unexpected end":                        `{"class": "Functional"`,
	} {
		if _, err := nn.ModelOf([]byte(data)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: want an error with %q, not: %v", data, want, err)
		}
	}
}

// Whatever the bytes, reading a model gives a model or an error; a model that was read can be saved, and described or refused.
func FuzzModelOf(f *testing.F) {
	f.Add([]byte(`{"class": "Sequential", "layers": [{"class": "Conv2D", "name": "c", "config": {"filters": 2, "kernel_size": 3}}]}`))
	f.Add([]byte(`{"class": "Functional", "inputs": [{"name": "x", "shape": [2], "dtype": "f32"}], "layers": [{"class": "Dense", "name": "d", "config": {"units": 1}, "inputs": ["x"]}], "outputs": ["d"]}`))
	for _, c := range layerCases {
		f.Add([]byte(`{"class": "Sequential", "layers": [{"class": "` + c.layer.Class() + `", "name": "l", "config": ` + string(c.layer.Config()) + `}]}`))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := nn.ModelOf(data)
		if err != nil {
			return
		}
		if _, err := json.Marshal(m); err != nil {
			t.Errorf("%s was read and cannot be saved: %v", data, err)
		}
		for _, types := range [][]graph.Type{in(f32(6)), in(f32(6, 2)), in(f32(4, 4, 2)), in(i32(4)), in(f32(2), f32(2))} {
			if d, err := m.Describe(types); err == nil && (d.Params() < 0 || d.FLOPs < 0) {
				t.Errorf("%s: %d parameters, %d FLOPs", data, d.Params(), d.FLOPs)
			}
		}
	})
}
