package xla

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/energy"
)

// Plugin is what List tells of a plugin.
type Plugin struct {
	Path     string       `json:"path"`
	API      string       `json:"api,omitempty"`
	Platform string       `json:"platform,omitempty"`
	Version  string       `json:"version,omitempty"`
	Devices  []DeviceInfo `json:"devices,omitempty"`
	Error    string       `json:"error,omitempty"` // why it cannot be used
}

// DeviceInfo is what List tells of a device. Bytes of memory are -1 where the plugin does not tell.
type DeviceInfo struct {
	ID    int    `json:"id"`
	Kind  string `json:"kind"`
	Limit int64  `json:"memory_bytes"`
	InUse int64  `json:"memory_in_use_bytes"`
}

// List tells of the plugin at path, or of all that Find finds, with their devices.
func List(path string) []Plugin {
	paths := []string{path}
	if path == "" {
		paths = Find()
	}
	var out []Plugin
	for _, p := range paths {
		i := Plugin{Path: p}
		c, err := client(p, 1)
		if err != nil {
			i.Error = err.Error()
			out = append(out, i)
			continue
		}
		i.API, i.Platform, i.Version = fmt.Sprintf("%d.%d", c.Plugin().Major, c.Plugin().Minor), c.Platform, c.Version
		for _, d := range c.Devices {
			i.Devices = append(i.Devices, DeviceInfo{d.ID, d.Kind, d.Limit, d.InUse})
		}
		out = append(out, i)
	}
	return out
}

// String is some lines for people.
func (p Plugin) String() string {
	var b strings.Builder
	if p.Error != "" {
		return fmt.Sprintf("xla: %s cannot be used: %s\n", p.Path, p.Error)
	}
	fmt.Fprintf(&b, "xla: %s, PJRT API %s, %s\n", p.Path, p.API, strings.ReplaceAll(strings.TrimSpace(p.Version), "\n", ", "))
	for _, d := range p.Devices {
		fmt.Fprintf(&b, "  %s %d: %s, ", p.Platform, d.ID, d.Kind)
		if d.Limit < 0 {
			b.WriteString("memory not told\n")
			continue
		}
		fmt.Fprintf(&b, "%s of memory, %s in use\n", energy.SI(float64(d.Limit), "B"), energy.SI(float64(max(0, d.InUse)), "B"))
	}
	return b.String()
}
