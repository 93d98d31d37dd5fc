package pairs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// description is what Debian's Translation index says about a package.
type description struct {
	synopsis   string
	paragraphs [][]string // of lines, without the leading space
}

// readDebian reads an index of descriptions (Translation-en, Translation-de) and calls f with the sum by which translations of a description are found. Descriptions that stand
// several times are given once.
func readDebian(path string, f func(sum string, d description)) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("pairs: %w", err)
	}
	defer file.Close()
	if err := parseDebian(file, f); err != nil {
		return fmt.Errorf("pairs: %s: %w", path, err)
	}
	return nil
}

func parseDebian(r io.Reader, f func(sum string, d description)) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	sum, d, in := "", description{}, false
	seen := map[string]bool{}
	var last []string
	paragraph := func() {
		if len(last) > 0 {
			d.paragraphs = append(d.paragraphs, last)
		}
		last = nil
	}
	flush := func() {
		paragraph()
		if sum != "" && d.synopsis != "" && !seen[sum] {
			seen[sum] = true
			f(sum, d)
		}
		sum, d, in = "", description{}, false
	}
	for s.Scan() {
		l := s.Text()
		switch {
		case l == "":
			flush()
		case strings.HasPrefix(l, "Description-md5: "):
			sum = strings.TrimPrefix(l, "Description-md5: ")
		case strings.HasPrefix(l, "Description-"):
			_, d.synopsis, _ = strings.Cut(l, ": ")
			d.synopsis = strings.TrimSpace(d.synopsis)
			in = true
		case in && strings.TrimSpace(l) == ".":
			paragraph()
		case in && l[0] == ' ':
			last = append(last, l[1:])
		default:
			in = false
		}
	}
	flush()
	return s.Err()
}

// Translations joins Debian's descriptions in English with those in another language: synopses, and of descriptions with as many parts the parts. Parts are the items of lists and
// the sentences of paragraphs where both have as many, else whole paragraphs. No pair is there twice.
func Translations(english, other string) ([]Pair, error) {
	theirs := map[string]description{}
	if err := readDebian(other, func(sum string, d description) { theirs[sum] = d }); err != nil {
		return nil, err
	}
	var out []Pair
	seen := map[Pair]bool{}
	add := func(a, b string) {
		p := Pair{a, b}
		if a != "" && b != "" && a != b && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	err := readDebian(english, func(sum string, d description) {
		t, ok := theirs[sum]
		if !ok {
			return
		}
		add(d.synopsis, t.synopsis)
		if len(d.paragraphs) != len(t.paragraphs) {
			return
		}
		for i := range d.paragraphs {
			a, b := items(d.paragraphs[i]), items(t.paragraphs[i])
			if len(a) != len(b) {
				continue
			}
			for k := range a {
				x, y := sentences(a[k]), sentences(b[k])
				if len(x) != len(y) {
					add(a[k], b[k])
					continue
				}
				for n := range x {
					add(x[n], y[n])
				}
			}
		}
	})
	return out, err
}

// Synopses pairs each of Debian's descriptions with its synopsis.
func Synopses(english string) ([]Pair, error) {
	var out []Pair
	seen := map[Pair]bool{}
	err := readDebian(english, func(_ string, d description) {
		var all []string
		for _, p := range d.paragraphs {
			all = append(all, items(p)...)
		}
		p := Pair{strings.Join(all, " "), d.synopsis}
		if p.Source != "" && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	})
	return out, err
}

// items joins the lines of a paragraph, and keeps the items of a list, whose lines begin with spaces or a bullet, apart.
func items(lines []string) []string {
	var out []string
	for _, l := range lines {
		t := strings.TrimSpace(l)
		bullet := strings.HasPrefix(t, "* ") || strings.HasPrefix(t, "- ") || strings.HasPrefix(t, "+ ")
		if bullet {
			t = strings.TrimSpace(t[2:])
		}
		t = strings.Join(strings.Fields(t), " ")
		if bullet || len(out) == 0 {
			out = append(out, t)
			continue
		}
		out[len(out)-1] += " " + t
	}
	return out
}

// sentences cuts a text behind full stops, question and exclamation marks that a space and a capital letter follow.
func sentences(s string) []string {
	var out []string
	from := 0
	for i := 0; i+2 < len(s); i++ {
		if s[i] != '.' && s[i] != '!' && s[i] != '?' || s[i+1] != ' ' {
			continue
		}
		r, _ := utf8.DecodeRuneInString(s[i+2:])
		if !unicode.IsUpper(r) || i-from < 12 {
			continue
		}
		out = append(out, s[from:i+1])
		from = i + 2
	}
	return append(out, s[from:])
}
