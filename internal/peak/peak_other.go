//go:build !amd64

package peak

func fma(n int) { fmaGo(n) }

func read(buf []byte) { readGo(buf) }
