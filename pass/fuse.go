package pass

import "github.com/jouleml/joule/graph"

// Fuse replaces patterns that have a kernel of their own.
func Fuse(g *graph.Graph) (*graph.Graph, error) { return g, nil }
