//go:build !amd64

package bgemm

import "github.com/jouleml/joule/dtype"

// Plans of this processor are widened: none of these is called.

const notHere = "bgemm: not on this processor"

func (p *Plan) vectors([]float32, int, []uint32, int, int, int, int, int)  { panic(notHere) }
func (p *Plan) rowsOfA(int, int, int) []uint32                             { panic(notHere) }
func (p *Plan) blocksOfTiles([]float32, int, []uint32, int, []uint32, int) { panic(notHere) }
func interleave([]uint32, []dtype.BFloat16, []dtype.BFloat16) int          { panic(notHere) }
func transpose([]uint32, int, []dtype.BFloat16, int, int, int)             { panic(notHere) }
func transposePairs([]uint32, int, []uint32, int, int, int)                { panic(notHere) }
