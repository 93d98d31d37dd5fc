package cpu_test

import (
	"testing"

	"github.com/jouleml/joule/backend/backendtest"
	"github.com/jouleml/joule/backend/cpu"
	"github.com/jouleml/joule/internal/isa"
)

func TestConformance(t *testing.T) {
	for _, l := range isa.ByteLevels() {
		t.Run(l.String(), func(t *testing.T) {
			defer isa.Use(l)()
			backendtest.Run(t, cpu.Backend{}, 1, 2, 3)
		})
	}
}
