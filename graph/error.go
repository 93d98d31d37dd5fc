package graph

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// Error is a violated rule of graph construction.
type Error struct {
	Op       string // the op's name
	Operands []Type
	Scope    string // layer path, "" outside any layer
	Site     string // the user's file:line
	Rule     string // what is wrong, with both shapes where two do not fit
}

// Error is one line: where, which layer, which op on what, and the rule.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Site != "" {
		b.WriteString(e.Site + ": ")
	}
	if e.Scope != "" {
		fmt.Fprintf(&b, "layer %s: ", e.Scope)
	}
	b.WriteString(e.Op)
	if len(e.Operands) > 0 {
		b.WriteByte('(')
		for i, t := range e.Operands {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(t.String())
		}
		b.WriteByte(')')
	}
	b.WriteString(": " + e.Rule)
	return b.String()
}

func (g *Graph) fail(op string, in []*Node, format string, args ...any) *Error {
	e := &Error{Op: op, Scope: g.scope, Rule: fmt.Sprintf(format, args...)}
	for _, n := range in {
		if n != nil {
			e.Operands = append(e.Operands, n.out...)
		}
	}
	e.Site = g.here().String()
	return e
}

// Fail stops construction with an *Error about node construction in g: builders call it for rules of their own.
func (g *Graph) Fail(op string, in []*Node, format string, args ...any) {
	panic(g.fail(op, in, format, args...))
}

func catch(err *error) {
	switch r := recover().(type) {
	case nil:
	case *Error:
		*err = r
	default:
		panic(r)
	}
}

// Site is a place in the user's program: a call stack, resolved only when asked for. The zero Site is nowhere.
type Site struct {
	n  int
	pc [12]uintptr
}

func Here() Site {
	var s Site
	s.n = runtime.Callers(3, s.pc[:])
	return s
}

// here is the place to blame for a node made now.
func (g *Graph) here() Site {
	switch {
	case g.from != nil:
		return g.from.site
	case g.at.n > 0:
		return g.at
	}
	return Here()
}

// own reports whether a frame is one of the packages that build graphs on a user's behalf.
func own(f runtime.Frame) bool {
	if rest, ok := strings.CutPrefix(f.Function, "github.com/jouleml/joule/"); ok {
		return !strings.HasPrefix(rest, "examples/")
	}
	return strings.HasPrefix(f.Function, "runtime.")
}

// command reports whether a frame is of the command joule, whose users have no line of their own.
func command(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "main.") && strings.HasSuffix(path.Dir(f.File), "/cmd/joule") // whatever folder holds the source
}

// Place is the layer of a node and, in a program of the user's own, its line there: "layer conv2d (made at main.go:12)".
func (n *Node) Place() string {
	if at := n.Site(); at != "" {
		return fmt.Sprintf("layer %s (made at %s)", n.scope, at)
	}
	return "layer " + n.scope
}

// String is "file.go:12", or "" when every recorded frame is Joule's own, or the command's.
func (s Site) String() string {
	if s.n == 0 {
		return ""
	}
	frames := runtime.CallersFrames(s.pc[:s.n])
	for {
		f, more := frames.Next()
		if command(f) {
			return ""
		}
		if f.Function != "" && (!own(f) || strings.HasSuffix(f.File, "_test.go")) {
			file := f.File
			if i := strings.LastIndexByte(file, '/'); i >= 0 {
				file = file[i+1:]
			}
			return fmt.Sprintf("%s:%d", file, f.Line)
		}
		if !more {
			return ""
		}
	}
}
