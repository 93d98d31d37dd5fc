//go:build !linux && !darwin

package isa

import "os"

func cpuName() string { return os.Getenv("PROCESSOR_IDENTIFIER") } // which Windows sets
