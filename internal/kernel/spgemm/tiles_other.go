//go:build !amd64

package spgemm

import "github.com/jouleml/joule/internal/isa"

func tilesOf(isa.Level, bool) []tile { return []tile{{rows: 1}} }
