//go:build !amd64

package conv

import "github.com/jouleml/joule/internal/isa"

const noAssembly = "conv: no assembly for this architecture"

func vecTransforms(isa.Level) transforms { panic(noAssembly) }

func depthwiseVec(isa.Level) (depthwiseFunc, depthwiseFilterFunc) { panic(noAssembly) }

func copyGroupVec(dst, src *float32, srcStride, pixels int) { panic(noAssembly) }
