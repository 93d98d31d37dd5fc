//go:build !amd64

package pool

import "github.com/jouleml/joule/internal/isa"

func vecKernels(isa.Level) kernels { panic("pool: no assembly for this architecture") }
