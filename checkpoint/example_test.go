package checkpoint_test

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/jouleml/joule/checkpoint"
	"github.com/jouleml/joule/dtype"
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

	folder := checkpoint.Folder{Dir: dir, Keep: 2}
	kernel := tensor.New(dtype.F32, 2, 2)
	for step := int64(100); step <= 300; step += 100 {
		kernel.F32()[0] = float32(step)
		_, err := folder.Save(&checkpoint.State{
			Step:     step,
			Score:    1 / float64(step), // the first is the best, and stays
			Sections: map[string]json.RawMessage{checkpoint.SectionRandom: json.RawMessage(`{"seed":1}`)},
			Tensors:  []safetensors.Named{{Name: "weights/dense/kernel", Value: kernel}},
		})
		if err != nil {
			fmt.Println(err)
			return
		}
	}

	newest, err := checkpoint.Latest(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, why := range newest.Skipped {
		fmt.Println("left out:", why)
	}
	fmt.Println(newest.Step, newest.Tensor("weights/dense/kernel"), string(newest.Sections["random"]))
	best, err := checkpoint.Best(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(best.Step)
	// Output:
	// 300 f32[2 2][300 0 0 0] {"seed":1}
	// 100
}
