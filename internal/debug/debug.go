// Package debug reads JOULE_DEBUG, a comma-separated list of key=value settings for those who work on Joule itself.
//
// Table is the one list of keys.
package debug

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
)

// Setting describes one key.
type Setting struct {
	Key  string
	Args string // what may follow "="
	Doc  string
}

// Table lists every key there is.
var Table = []Setting{
	{"check", "ref", "run every node on the reference too and stop at the first that differs"},
	{"dispatch", "1", "print which kernel each node got, and why"},
	{"dump", "PASS or all", "print the graph after the named pass"},
	{"isa", "portable, avx2, avxvnni or avx512", "use no instructions beyond this set"},
	{"machines", "N or LETTERS", "ranks believe themselves on N machines, or rank by rank on those of the letters (aabb; repeated: ab is by turns), to try what sums between machines do"},
	{"nan", "1", "stop at the first node that makes a NaN or an infinity, and say which Go line made the node"},
	{"pass", "-NAME", "leave the named pass out (may be given several times)"},
	{"ranks", "messages", "ranks of one machine send messages in place of adding up in memory that all see"},
	{"threads", "N", "use N threads where none were asked for"},
}

var settings = sync.OnceValues(func() (map[string][]string, error) { return Parse(os.Getenv("JOULE_DEBUG")) })

// Parse splits a JOULE_DEBUG value. A bare key means key=1. Unknown keys are an error that lists the known ones.
func Parse(s string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, f := range strings.Split(s, ",") {
		f = strings.TrimSpace(f)
		if f == "" {
			continue
		}
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			v = "1"
		}
		if !slices.ContainsFunc(Table, func(t Setting) bool { return t.Key == k }) {
			var known []string
			for _, t := range Table {
				known = append(known, t.Key)
			}
			return nil, fmt.Errorf("JOULE_DEBUG: unknown key %q (known: %s)", k, strings.Join(known, ", "))
		}
		out[k] = append(out[k], v)
	}
	return out, nil
}

// Err is the error in JOULE_DEBUG, if any; the command reports it at start.
func Err() error { _, err := settings(); return err }

// Get is the last value given for key, "" when it was not given.
func Get(key string) string {
	if v := Values(key); len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// On reports whether key was given a value other than "0".
func On(key string) bool { v := Get(key); return v != "" && v != "0" }

// Values is every value given for key.
func Values(key string) []string {
	m, _ := settings()
	return m[key]
}
