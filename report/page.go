// Package report writes a run's account as one self-contained HTML file: curves, tables, bars and pictures that open offline, in light and dark, on
// paper and on a phone.
//
// # Terminology
//
// A Page is a title, a few Tiles (the figures that matter most) and Sections, in order. A Section is a heading with Parts: Lines (curves), Bars, Points (a scatter),
// Matrix (counts of pairs), Shares (how rows divide a whole), Table, Text and Pictures. Whoever has something to add appends a Section to the slice; a part knows nothing about what it shows.
//
// The file asks for nothing from outside: no scripts, no fonts, pictures as data URIs, and a Content-Security-Policy that forbids the rest.
package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"image"
	"io"
	"strings"

	"github.com/jouleml/joule/internal/atomicfile"
)

// Page is a whole report.
type Page struct {
	Title    string
	Subtitle string
	// State is a word about how it ended, such as "done"; Bad marks one that is to be noticed.
	State string
	Bad   bool
	Tiles []Tile
	// Sections are shown in this order and listed at the top.
	Sections []Section
	Foot     string
}

// Tile is a figure that stands at the top, such as {"test accuracy", "0.9916", ""}.
type Tile struct{ Name, Value, Note string }

// Section is a part of the page with a heading of its own.
type Section struct {
	Title string
	Text  string // what the reader should know first; may be empty
	Parts []Part
}

// ID is the section's anchor: its title in small letters.
func (s Section) ID() string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, s.Title), "-")
}

// Part is something a section shows: *Lines, *Bars, *Points, *Matrix, *Shares, *Table, *Text or *Pictures.
type Part interface{ kind() string }

// Text is running text, or with Mono a listing that keeps its lines. Lead, if any, stands before it in another colour, as a prompt does.
type Text struct {
	Title string
	Lead  string
	Body  string
	Mono  bool
}

// Table is rows of text; the first column names the row. Numeric columns (true in Right) are set flush right.
type Table struct {
	Title   string
	Columns []string
	Right   []bool
	Rows    [][]string
	Total   []string // a last row that is set apart, or nil
	// Fold shows only the title until the reader opens it.
	Fold bool
}

// Pictures are images with a line or two under each.
type Pictures struct {
	Title    string
	Pictures []Picture
}

// Picture is one image. Mark says whether what the caption claims is right: 1 right, -1 wrong, 0 neither.
type Picture struct {
	Image   image.Image
	Alt     string // what is to be seen, for those who cannot
	Caption string
	Note    string
	Mark    int
}

// Sharp reports whether the picture is large enough to be drawn smoothly; smaller ones show their pixels.
func (p Picture) Sharp() bool { return p.Image.Bounds().Dx() > 96 }

func (*Text) kind() string     { return "text" }
func (*Table) kind() string    { return "table" }
func (*Pictures) kind() string { return "pictures" }
func (*Lines) kind() string    { return "lines" }
func (*Bars) kind() string     { return "bars" }
func (*Points) kind() string   { return "points" }
func (*Matrix) kind() string   { return "matrix" }

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"kind":  func(p Part) string { return p.kind() },
	"css":   func() template.CSS { return template.CSS(pageCSS) },
	"uri":   dataURI,
	"right": func(t *Table, i int) bool { return i < len(t.Right) && t.Right[i] },
	"small": small,
	"add":   func(a, b float64) float64 { return a + b },
	"paras": func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n\n") },
}).Parse(pageHTML))

// Write writes the page as HTML.
func (p *Page) Write(w io.Writer) error {
	if err := page.Execute(w, p); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// Save replaces the file with the page, atomically.
func (p *Page) Save(path string) error {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	if err := atomicfile.WriteBytes(path, b.Bytes()); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}

// small says that a part is a chart that shares a line with others.
func small(p Part) bool {
	switch p.(type) {
	case *Lines, *Bars, *Points:
		return true
	}
	return false
}

// Rows groups the section's parts for the template: charts that follow one another share a grid.
func (s Section) Rows() [][]Part {
	var out [][]Part
	for i, p := range s.Parts {
		if i > 0 && small(p) && small(s.Parts[i-1]) {
			out[len(out)-1] = append(out[len(out)-1], p)
			continue
		}
		out = append(out, []Part{p})
	}
	return out
}
