package safetensors_test

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/format/safetensors"
	"github.com/jouleml/joule/tensor"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")

	err = safetensors.WriteFile(path, []safetensors.Named{
		{Name: "dense/kernel", Value: tensor.Of([]float32{1, 2, 3, 4}, 2, 2)},
		{Name: "dense/bias", Value: tensor.Of([]float32{5, 6})},
	}, map[string]string{"author": "me"})
	if err != nil {
		fmt.Println(err)
		return
	}

	f, err := safetensors.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	for _, t := range f.Tensors() {
		fmt.Println(t.Name, t.Stored, t.Shape)
	}
	kernel, err := f.Load("dense/kernel")
	fmt.Println(kernel, err, f.Metadata()["author"])
	// Output:
	// dense/bias F32 [2]
	// dense/kernel F32 [2 2]
	// f32[2 2][1 2 3 4] <nil> me
}
