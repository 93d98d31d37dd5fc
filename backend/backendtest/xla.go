package backendtest

import (
	"os"
	"testing"

	"github.com/jouleml/joule/backend/xla"
)

// XLA connects to the PJRT plugin that JOULE_PJRT_PLUGIN names, on n devices, without a cache, and skips the test where there is none. (Tests take no plugin that they find by themselves: which one they ran on must be known.)
func XLA(t testing.TB, n int) *xla.Backend {
	t.Helper()
	if os.Getenv(xla.PluginEnv) == "" {
		t.Skipf("needs a PJRT plugin: set %s to its file (docs/xla.md says how to get one)", xla.PluginEnv)
	}
	b, err := xla.Open(xla.Options{Devices: n, Cache: "off"})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
