//go:build !race

package conv

const race = false
