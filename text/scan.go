package text

import (
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// The divisions that most models use are written out here, since an engine with look-ahead is some twenty times slower; a test compares them with it.
const (
	gpt2Pattern   = `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	cl100kPattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwenPattern   = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	o200kPattern  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	oldGPT2       = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
)

// fastPieces is the written-out division by an expression, nil if there is none.
func fastPieces(pattern string) func(s string, emit func(string)) {
	switch pattern {
	case gpt2Pattern, oldGPT2:
		return gpt2Pieces
	case cl100kPattern:
		return func(s string, emit func(string)) { cl100kPieces(s, 3, emit) }
	case o200kPattern:
		return o200kPieces
	case qwenPattern:
		return func(s string, emit func(string)) { cl100kPieces(s, 1, emit) }
	}
	return nil
}

// kinds of characters
const (
	isSpace = iota
	isLetter
	isNumber
	isOther
)

var asciiKind [128]uint8

func init() {
	for i := range asciiKind {
		asciiKind[i] = slowKind(rune(i))
	}
}

func slowKind(r rune) uint8 {
	switch {
	case unicode.IsLetter(r):
		return isLetter
	case unicode.IsNumber(r):
		return isNumber
	case unicode.IsSpace(r):
		return isSpace
	}
	return isOther
}

// kindAt is the kind and the length of the character at i; length 0 at the end.
func kindAt(s string, i int) (kind uint8, n int) {
	if i >= len(s) {
		return isOther, 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		return asciiKind[c], 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	return slowKind(r), n
}

// run is the end of the stretch of characters of a kind from i on.
func run(s string, i int, kind uint8) int {
	for {
		k, n := kindAt(s, i)
		if n == 0 || k != kind {
			return i
		}
		i += n
	}
}

// blank is the end of a stretch of white space that begins at i: all of it at the end of the text, else all but the last character, or that one if it is alone.
func blank(s string, i int) int {
	end, last := i, i
	for {
		k, n := kindAt(s, end)
		if n == 0 {
			return end
		}
		if k != isSpace {
			break
		}
		last = end
		end += n
	}
	if last == i {
		return end
	}
	return last
}

// gpt2Pieces divides by gpt2Pattern.
func gpt2Pieces(s string, emit func(string)) {
	for i := 0; i < len(s); {
		end := i
		kind, n := kindAt(s, i)
		switch {
		case s[i] == '\'' && contraction(s[i:], false) > 0:
			end = i + contraction(s[i:], false)
		case kind != isSpace:
			end = run(s, i+n, kind)
		case s[i] == ' ':
			if k, m := kindAt(s, i+1); m > 0 && k != isSpace {
				end = run(s, i+1+m, k)
				break
			}
			end = blank(s, i)
		default:
			end = blank(s, i)
		}
		emit(s[i:end])
		i = end
	}
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the beginning of s, 0 if there is none. Folding takes ſ for s.
func contraction(s string, fold bool) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	at := func(i int) byte {
		if i >= len(s) {
			return 0
		}
		if c := s[i]; fold && c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return s[i]
	}
	switch at(1) {
	case 's', 't', 'm', 'd':
		return 2
	case 'r', 'v':
		if at(2) == 'e' {
			return 3
		}
	case 'l':
		if at(2) == 'l' {
			return 3
		}
	case "ſ"[0]:
		if fold && at(2) == "ſ"[1] {
			return 3
		}
	}
	return 0
}

// cl100kPieces divides by cl100kPattern, with at most so many digits together.
func cl100kPieces(s string, digits int, emit func(string)) {
	for i := 0; i < len(s); {
		end := cl100kEnd(s, i, digits)
		emit(s[i:end])
		i = end
	}
}

func cl100kEnd(s string, i, digits int) int {
	if n := contraction(s[i:], true); n > 0 {
		return i + n
	}
	kind, n := kindAt(s, i)
	if kind == isLetter {
		return run(s, i+n, isLetter)
	}
	if kind == isNumber {
		end := i + n
		for range digits - 1 {
			k, m := kindAt(s, end)
			if m == 0 || k != isNumber {
				break
			}
			end += m
		}
		return end
	}
	breaks := s[i] == '\n' || s[i] == '\r'
	if !breaks { // one sign or space before letters belongs to them
		if k, m := kindAt(s, i+n); m > 0 && k == isLetter {
			return run(s, i+n+m, isLetter)
		}
	}
	from := i
	if s[i] == ' ' {
		from++
	}
	if k, m := kindAt(s, from); m > 0 && k == isOther {
		end := run(s, from+m, isOther)
		for end < len(s) && (s[end] == '\n' || s[end] == '\r') {
			end++
		}
		return end
	}
	return blankLines(s, i)
}

// blankLines is the end of white space from i on: behind its last line break, if it has one.
func blankLines(s string, i int) int {
	last := -1
	end := i
	for {
		k, m := kindAt(s, end)
		if m == 0 || k != isSpace {
			break
		}
		if s[end] == '\n' || s[end] == '\r' {
			last = end + 1
		}
		end += m
	}
	if last >= 0 {
		return last
	}
	return blank(s, i)
}

// o200kPieces divides by o200kPattern.
func o200kPieces(s string, emit func(string)) {
	for i := 0; i < len(s); {
		end := o200kEnd(s, i)
		emit(s[i:end])
		i = end
	}
}

// caseAt says whether the character at i may stand among capitals (Lu, Lt, Lm, Lo, M) and among small letters (Ll, Lm, Lo, M), and its length.
func caseAt(s string, i int) (capital, small bool, n int) {
	if i >= len(s) {
		return false, false, 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		return c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case unicode.In(r, unicode.Lu, unicode.Lt):
		return true, false, n
	case unicode.Is(unicode.Ll, r):
		return false, true, n
	case unicode.In(r, unicode.Lm, unicode.Lo, unicode.M):
		return true, true, n
	}
	return false, false, n
}

// cased is the end of capitals and then, if some must follow, small letters from i on; -1 if there is no such word. Where no small letter follows the capitals, they end behind
// the last that may be either.
func cased(s string, i int, some bool) int {
	end, either := i, -1
	for {
		capital, small, n := caseAt(s, end)
		if n == 0 || !capital {
			break
		}
		end += n
		if small {
			either = end
		}
	}
	capitals := end
	for {
		_, small, n := caseAt(s, end)
		if n == 0 || !small {
			break
		}
		end += n
	}
	switch {
	case end > capitals || !some && capitals > i:
		return end
	case some:
		return either
	}
	return -1
}

func o200kEnd(s string, i int) int {
	kind, n := kindAt(s, i)
	if kind == isNumber {
		return cl100kEnd(s, i, 3)
	}
	breaks := s[i] == '\n' || s[i] == '\r'
	for _, some := range []bool{true, false} {
		if !breaks && kind != isLetter {
			if end := cased(s, i+n, some); end >= 0 {
				return end + contraction(s[end:], true)
			}
		}
		if end := cased(s, i, some); end >= 0 {
			return end + contraction(s[end:], true)
		}
	}
	from := i
	if s[i] == ' ' {
		from++
	}
	if k, m := kindAt(s, from); m > 0 && k == isOther {
		end := run(s, from+m, isOther)
		for end < len(s) && (s[end] == '\n' || s[end] == '\r' || s[end] == '/') {
			end++
		}
		return end
	}
	return blankLines(s, i)
}

// expression is a regular expression with look-ahead, in the reading of .NET, which for what tokenizers use agrees with Oniguruma's.
type expression struct{ re *regexp2.Regexp }

func compile(pattern string) (*expression, error) {
	re, err := regexp2.Compile(pattern)
	if err != nil {
		return nil, err
	}
	return &expression{re}, nil
}

// failure is an error in the midst of an encoding; Append turns it into an ordinary one.
type failure struct{ err error }

func (e *expression) each(s string, f func(from, to int)) {
	at, err := e.re.FindAllStringIndex(s, -1)
	if err != nil {
		panic(failure{fmt.Errorf("text: dividing by %s: %w", e.re, err)})
	}
	for _, m := range at {
		f(m[0], m[1])
	}
}
