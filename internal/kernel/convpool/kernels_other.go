//go:build !amd64

package convpool

import "github.com/jouleml/joule/internal/isa"

const noAssembly = "convpool: no assembly for this architecture"

func vecTransforms(isa.Level, int, int) transforms { panic(noAssembly) }

func vecDirect(isa.Level) []directKernel { panic(noAssembly) }

func vecLanes(isa.Level, int) (int, lanesFunc) { panic(noAssembly) }

func vecStrips(isa.Level, int, bool) []strip { panic(noAssembly) }
