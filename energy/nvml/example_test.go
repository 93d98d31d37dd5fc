package nvml_test

import (
	"fmt"

	"github.com/jouleml/joule/energy/nvml"
)

// Where there is no GPU with a counter, the error says what is missing, and energy is estimated.
func ExampleOpen() {
	meter, err := nvml.Open()
	if err != nil {
		fmt.Println(err) // such as "energy: NVML: there is no driver of NVIDIA on this machine: …"
		return
	}
	before, _ := meter.Joules()
	after, err := meter.Joules()
	fmt.Println(meter.Source(), after-before, err)
}
