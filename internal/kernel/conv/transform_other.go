//go:build !amd64

package conv

import "github.com/jouleml/joule/internal/isa"

func vecTransforms(isa.Level) transforms { panic("conv: no assembly for this architecture") }
