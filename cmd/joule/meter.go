package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/jouleml/joule/energy"
	"github.com/jouleml/joule/energy/nvml"
	"github.com/jouleml/joule/internal/nearest"
)

// meterFlag is the choice of energy counters.
type meterFlag struct{ which string }

var meterNames = []string{"auto", "rapl", "nvml", "rapl+nvml", "none"}

func (m *meterFlag) add(fs *pflag.FlagSet) {
	fs.StringVar(&m.which, "meter", "auto", "energy counters to read: rapl (processor and memory), nvml (NVIDIA GPUs), rapl+nvml, none (estimate); auto is rapl where there is one")
}

// open gives the meter, nil where energy is to be estimated, with the reasons. Counters that were asked for by name and cannot be read are an error.
func (m *meterFlag) open() (energy.Meter, []error, error) {
	var ms []energy.Meter
	switch m.which {
	case "auto", "":
		meter, why := energy.Open()
		return meter, why, nil
	case "none":
		return nil, []error{errors.New("asked for with --meter none")}, nil
	case "rapl", "nvml", "rapl+nvml":
		for _, name := range strings.Split(m.which, "+") {
			open := func() (energy.Meter, error) { return nvml.Open() }
			if name == "rapl" {
				open = func() (energy.Meter, error) {
					meter, why := energy.Open()
					return meter, errors.Join(why...)
				}
			}
			meter, err := open()
			if err != nil {
				return nil, nil, fmt.Errorf("--meter %s: %w", m.which, err)
			}
			ms = append(ms, meter)
		}
		return energy.Sum(ms...), nil, nil
	}
	return nil, nil, usageError{fmt.Errorf("there is no meter %q%s (known: %s)", m.which, nearest.Hint(m.which, meterNames), strings.Join(meterNames, ", "))}
}
