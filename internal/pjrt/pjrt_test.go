package pjrt

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorsAreToldApart(t *testing.T) {
	full := fmt.Errorf("run: %w", &Error{8, "RESOURCE_EXHAUSTED: no"})
	if !errors.Is(full, ErrOutOfMemory) || errors.Is(&Error{3, "bad"}, ErrOutOfMemory) {
		t.Error("code 8 alone is a lack of memory")
	}
}

// A plugin that is older than what was tried, or lacks a function, is refused before it is called.
func TestTooOld(t *testing.T) {
	p := &Plugin{fns: make([]uintptr, 4)}
	b := get()
	defer put(b)
	if err := p.call(fnExecute, b); !errors.Is(err, ErrTooOld) {
		t.Errorf("%v", err)
	}
	if err := p.call(fnInitialize, b); !errors.Is(err, ErrTooOld) {
		t.Errorf("%v", err)
	}
}

// The bytes of CompileOptionsProto{executable_build_options: {device_ordinal: -1, num_replicas: 1, num_partitions: 2, use_spmd_partitioning: true, use_shardy_partitioner: true}, env_option_overrides: {"x": true}}.
func TestOptions(t *testing.T) {
	want := "\x1a\x14\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x20\x01\x28\x02\x30\x01\x98\x01\x01" + "\x3a\x07\x0a\x01x\x12\x02\x10\x01"
	if got := string(options(2, []Setting{{"x", true}})); got != want {
		t.Errorf("%x, want %x", got, want)
	}
}
