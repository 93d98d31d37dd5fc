package xla

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/internal/pjrt"
)

// CacheEnv is the environment variable that names the folder of compiled programs, or says "off".
const CacheEnv = "JOULE_XLA_CACHE"

// cacheLimit is how many bytes of programs are kept; the oldest go first.
const cacheLimit = 1 << 30

// settings are the compiler settings of every program: a conversion to bf16 rounds, even where XLA could leave it out.
var settings = []pjrt.Setting{{Name: "xla_allow_excess_precision", Value: false}}

// CacheDir is the folder of compiled programs where no other is named: JOULE_XLA_CACHE, or joule/xla among the user's caches; "" if there is none.
func CacheDir() string {
	if d := os.Getenv(CacheEnv); d != "" {
		return d
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(d, "joule", "xla")
}

// cache keeps compiled programs on disk under a hash of all that they depend on: the text, the plugin's file and version, the devices, the compiler's settings and this machine's processor.
type cache struct {
	dir     string // "": none
	key     []byte
	devices int
}

func newCache(dir string, c *pjrt.Client, devices int) cache {
	if dir == "" {
		dir = CacheDir()
	}
	if dir == "off" {
		dir = ""
	}
	h := sha256.New()
	p := c.Plugin()
	fmt.Fprintln(h, "joule xla 1", p.Major, p.Minor, c.Platform, c.Version, devices, settings)
	for _, d := range c.Devices[:devices] {
		fmt.Fprintln(h, d.ID, d.Kind)
	}
	if s, err := os.Stat(p.Path); err == nil {
		fmt.Fprintln(h, s.Size(), s.ModTime().UnixNano())
	}
	h.Write(processor())
	return cache{dir, h.Sum(nil), devices}
}

// processor is what tells kinds of this machine's processor apart: a program for the CPU may use any instruction that it has.
func processor() []byte {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil
	}
	var out []byte
	for _, line := range bytes.Split(text, []byte("\n")) {
		if bytes.HasPrefix(line, []byte("model name")) || bytes.HasPrefix(line, []byte("flags")) || bytes.HasPrefix(line, []byte("Features")) {
			out = append(append(out, line...), '\n')
		}
		if len(line) == 0 { // one processor says it for all
			break
		}
	}
	return out
}

const magic = "joule-xla-1\n"

// compile gives the program for a text, from the cache if it is there. What is there but cannot be used is replaced.
func (k cache) compile(c *pjrt.Client, text string) (*pjrt.Executable, error) {
	if k.dir == "" {
		return c.Compile(text, k.devices, settings...)
	}
	h := sha256.New()
	h.Write(k.key)
	h.Write([]byte(text))
	path := filepath.Join(k.dir, hex.EncodeToString(h.Sum(nil))+".xla")
	if kept, err := read(path); err == nil {
		if e, err := c.Load(kept, k.devices); err == nil {
			return e, nil
		}
	}
	e, err := c.Compile(text, k.devices, settings...)
	if err != nil {
		return nil, err
	}
	// A plugin that cannot serialize, or a disk that is full, costs time at the next start and nothing else.
	if raw, err := e.Serialize(); err == nil && len(raw) > 0 {
		if os.MkdirAll(k.dir, 0o777) == nil {
			k.prune(int64(len(raw)))
			sum := sha256.Sum256(raw)
			_ = atomicfile.WriteBytes(path, slices.Concat([]byte(magic), sum[:], raw))
		}
	}
	return e, nil
}

// read gives the program in a file, whose checksum must be right.
func read(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(raw, []byte(magic))
	if !ok || len(rest) < sha256.Size {
		return nil, fmt.Errorf("%s is no compiled program", path)
	}
	body := rest[sha256.Size:]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], rest[:sha256.Size]) {
		return nil, fmt.Errorf("%s is damaged", path)
	}
	return body, nil
}

// prune removes the oldest programs until there is room for n bytes more.
func (k cache) prune(n int64) {
	type file struct {
		path string
		info fs.FileInfo
	}
	var files []file
	found, _ := filepath.Glob(filepath.Join(k.dir, "*.xla"))
	for _, p := range found {
		if s, err := os.Stat(p); err == nil {
			files = append(files, file{p, s})
			n += s.Size()
		}
	}
	slices.SortFunc(files, func(a, b file) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	for _, f := range files {
		if n <= cacheLimit {
			return
		}
		if os.Remove(f.path) == nil {
			n -= f.info.Size()
		}
	}
}
