package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/backend/xla"
	"github.com/jouleml/joule/internal/isa"
	"github.com/jouleml/joule/train"
)

// backendFlags choose what runs a model.
type backendFlags struct {
	Backend string `json:"backend,omitempty"`
	Plugin  string `json:"plugin,omitempty"`
	Devices int    `json:"devices,omitempty"`

	opened *xla.Backend
}

func (f *backendFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.Backend, "backend", "cpu", "what runs the model: cpu, or xla (an accelerator's plugin: docs/xla.md)")
	fs.StringVar(&f.Plugin, "plugin", "", "with --backend xla: the PJRT plugin's file (default: "+xla.PluginEnv+", or the first in the usual Python folders)")
	fs.IntVar(&f.Devices, "devices", 0, "with --backend xla: devices that share each batch (default: 1)")
}

// option opens the backend; it gives nil for the CPU, which is the default of package train.
func (f *backendFlags) option() (train.Option, error) {
	switch f.Backend {
	case "", "cpu":
		if f.Plugin != "" || f.Devices != 0 {
			return nil, usageError{errors.New("--plugin and --devices are for --backend xla")}
		}
		return nil, nil
	case "xla":
		if f.Devices < 0 {
			return nil, usageError{errors.New("--devices must not be negative")}
		}
		b, err := xla.Open(xla.Options{Plugin: f.Plugin, Devices: f.Devices})
		if err != nil {
			return nil, err
		}
		f.opened = b
		return train.On(b), nil
	}
	return nil, usageError{fmt.Errorf("there is no backend %q; known: cpu, xla", f.Backend)}
}

// isa says what runs the model: an instruction set of this processor, or devices.
func (f *backendFlags) isa() string {
	if f.opened == nil {
		return isa.Current().String()
	}
	return fmt.Sprintf("xla on %d × %s", f.opened.Devices(), f.opened.Kind())
}

// options adds the backend to others.
func (f *backendFlags) options(opts ...train.Option) ([]train.Option, error) {
	o, err := f.option()
	if o != nil {
		opts = append(opts, o)
	}
	return opts, err
}
