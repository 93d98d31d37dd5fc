package xla

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/jouleml/joule/internal/dl"
	"github.com/jouleml/joule/internal/pjrt"
)

// PluginEnv is the environment variable that names a plugin.
const PluginEnv = "JOULE_PJRT_PLUGIN"

// patterns are where Python packages keep their plugins, in a folder of packages: accelerators first.
var patterns = []string{
	"jax_plugins/xla_cuda*/xla_cuda_plugin.so",
	"jax_plugins/xla_rocm*/xla_rocm_plugin.so",
	"libtpu/libtpu.so",
	"jax_plugins/*/*plugin*.so",
	"lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so",
	"xla_plugins/*/*.so",
	"fastatomstruct_xla_cpu/libpjrt_cpu.so",
}

// packageFolders are the usual folders of Python packages.
func packageFolders() []string {
	var roots []string
	if v := os.Getenv("VIRTUAL_ENV"); v != "" {
		roots = append(roots, v+"/lib/python3*/site-packages")
	}
	if v := os.Getenv("CONDA_PREFIX"); v != "" {
		roots = append(roots, v+"/lib/python3*/site-packages")
	}
	if home, err := os.UserHomeDir(); err == nil {
		roots = append(roots, home+"/.local/lib/python3*/site-packages")
	}
	roots = append(roots, "/usr/local/lib/python3*/site-packages", "/usr/local/lib/python3*/dist-packages", "/usr/lib/python3/dist-packages", "/usr/lib/python3*/site-packages")
	var out []string
	for _, r := range roots {
		m, _ := filepath.Glob(r) // the only error is a bad pattern
		out = append(out, m...)
	}
	return out
}

// Find lists the plugins to try, in order: the one named by the environment variable JOULE_PJRT_PLUGIN and no other, or those in the usual folders of Python packages.
func Find() []string {
	if p := os.Getenv(PluginEnv); p != "" {
		return []string{p}
	}
	var out []string
	seen := map[string]bool{}
	folders := packageFolders()
	for _, p := range patterns {
		for _, f := range folders {
			m, _ := filepath.Glob(filepath.Join(f, p))
			for _, path := range m {
				if !seen[path] {
					seen[path] = true
					out = append(out, path)
				}
			}
		}
	}
	return out
}

// clients are kept: a plugin may allow one for each process.
var clients struct {
	sync.Mutex
	at map[clientKey]*pjrt.Client
}

type clientKey struct {
	path    string
	devices int
}

// connect opens the plugin at path, or the first of Find that has a device.
func connect(path string, devices int) (*pjrt.Client, error) {
	if !dl.Available() {
		return nil, fmt.Errorf("xla: %w", dl.ErrUnavailable)
	}
	paths := []string{path}
	if path == "" {
		if paths = Find(); len(paths) == 0 {
			return nil, fmt.Errorf("xla: no PJRT plugin was found: install one (docs/xla.md says how) or name its file with --plugin or %s", PluginEnv)
		}
	}
	var all error
	for _, p := range paths {
		c, err := client(p, devices)
		if err == nil {
			return c, nil
		}
		all = errors.Join(all, err)
	}
	return nil, fmt.Errorf("xla: no plugin can be used (docs/xla.md says how to get one): %w", all)
}

func client(path string, devices int) (*pjrt.Client, error) {
	clients.Lock()
	defer clients.Unlock()
	k := clientKey{path, devices}
	if c := clients.at[k]; c != nil {
		return c, nil
	}
	if c := clients.at[clientKey{path, 1}]; c != nil && len(c.Devices) >= devices {
		return c, nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("there is no plugin: %w", err)
	}
	p, err := pjrt.Open(path)
	if err != nil {
		return nil, err
	}
	var c *pjrt.Client
	if devices > 1 { // a CPU has as many devices as one asks for; other plugins refuse the option, and have their own
		c, _ = p.NewClient(pjrt.Option{Name: "cpu_device_count", Value: int64(devices)})
	}
	if c == nil {
		if c, err = p.NewClient(); err != nil {
			return nil, err
		}
	}
	if clients.at == nil {
		clients.at = map[clientKey]*pjrt.Client{}
	}
	clients.at[k] = c
	return c, nil
}
