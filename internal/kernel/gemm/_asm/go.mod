module github.com/jouleml/joule/internal/kernel/gemm/_asm

go 1.26.8

require (
	github.com/jouleml/joule/internal/kernel/vec/_asm v0.0.0
	github.com/mmcloughlin/avo v0.6.0
)

replace github.com/jouleml/joule/internal/kernel/vec/_asm => ../../vec/_asm

require (
	golang.org/x/mod v0.42.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
)
