package text

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer changes text before it is divided.
type normalizer interface{ normalize(s string) string }

type normalize func(s string) string

func (f normalize) normalize(s string) string { return f(s) }

type normalizers []normalizer

func (l normalizers) normalize(s string) string {
	for _, n := range l {
		s = n.normalize(s)
	}
	return s
}

// valid replaces what is not UTF-8 by U+FFFD, one for each longest beginning of a character, as the Unicode standard recommends (chapter 3.9, table 3-8).
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string(lossy([]byte(s)))
}

func lossy(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	out := make([]byte, 0, len(b)+8)
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r != utf8.RuneError || n > 1 {
			out, b = append(out, b[:n]...), b[n:]
			continue
		}
		out, b = utf8.AppendRune(out, utf8.RuneError), b[beginning(b):]
	}
	return out
}

// beginning is the length of the longest beginning of b that could begin a character, at least 1.
func beginning(b []byte) int {
	low, high, need := byte(0x80), byte(0xbf), 0
	switch c := b[0]; {
	case c >= 0xc2 && c <= 0xdf:
		need = 1
	case c >= 0xe0 && c <= 0xef:
		need = 2
		if c == 0xe0 {
			low = 0xa0
		} else if c == 0xed {
			high = 0x9f
		}
	case c >= 0xf0 && c <= 0xf4:
		need = 3
		if c == 0xf0 {
			low = 0x90
		} else if c == 0xf4 {
			high = 0x8f
		}
	}
	n := 1
	for n <= need && n < len(b) && b[n] >= low && b[n] <= high {
		n++
		low, high = 0x80, 0xbf
	}
	return n
}

func parseNormalizer(j json.RawMessage) (normalizer, error) {
	if absent(j) {
		return nil, nil
	}
	kind, err := typeOf(j)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "NFC":
		return normalize(norm.NFC.String), nil
	case "NFD":
		return normalize(norm.NFD.String), nil
	case "NFKC":
		return normalize(norm.NFKC.String), nil
	case "NFKD":
		return normalize(norm.NFKD.String), nil
	case "Lowercase":
		return normalize(lower), nil
	case "StripAccents":
		return normalize(stripMarks), nil
	case "Nmt":
		return normalize(nmt), nil
	case "ByteLevel":
		return normalize(byteLetters), nil
	case "Sequence":
		var p struct{ Normalizers []json.RawMessage }
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		l, err := parseEach(p.Normalizers, "normalizer", parseNormalizer)
		if err != nil {
			return nil, err
		}
		return normalizers(l), nil
	case "Strip":
		p := struct {
			Left  *bool `json:"strip_left"`
			Right *bool `json:"strip_right"`
		}{}
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		left, right := p.Left == nil || *p.Left, p.Right == nil || *p.Right
		return normalize(func(s string) string {
			if left {
				s = strings.TrimLeftFunc(s, unicode.IsSpace)
			}
			if right {
				s = strings.TrimRightFunc(s, unicode.IsSpace)
			}
			return s
		}), nil
	case "Prepend":
		var p struct{ Prepend string }
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		return normalize(func(s string) string {
			if s == "" {
				return s
			}
			return p.Prepend + s
		}), nil
	case "Replace":
		return parseReplace(j)
	case "BertNormalizer":
		p := bertNormalizer{Clean: true, Chinese: true, Lower: true}
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		return &p, nil
	case "Precompiled":
		var p struct {
			Map string `json:"precompiled_charsmap"`
		}
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		b, err := base64.StdEncoding.DecodeString(p.Map)
		if err != nil {
			return nil, fmt.Errorf("precompiled_charsmap: %w", err)
		}
		m, err := parseCharsMap(b)
		if err != nil {
			return nil, err
		}
		return normalize(m.byGrapheme), nil
	}
	return nil, unknown(kind, "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "Sequence", "Strip", "Prepend", "Replace", "BertNormalizer", "Precompiled")
}

// textPattern is {"String": …} or {"Regex": …}.
type textPattern struct{ String, Regex *string }

func parseReplace(j json.RawMessage) (normalizer, error) {
	var p struct {
		Pattern textPattern
		Content string
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	switch {
	case p.Pattern.String != nil:
		old := *p.Pattern.String
		if old == "" {
			return nil, errors.New("pattern: the text to replace is empty")
		}
		return normalize(func(s string) string { return strings.ReplaceAll(s, old, p.Content) }), nil
	case p.Pattern.Regex != nil:
		e, err := compile(*p.Pattern.Regex)
		if err != nil {
			return nil, err
		}
		return normalize(func(s string) string {
			var out strings.Builder
			done := 0
			e.each(s, func(from, to int) {
				out.WriteString(s[done:from])
				out.WriteString(p.Content)
				done = to
			})
			out.WriteString(s[done:])
			return out.String()
		}), nil
	}
	return nil, errors.New("pattern: it has neither String nor Regex")
}

// lower makes each character lower case by itself.
func lower(s string) string {
	if strings.ContainsRune(s, 'İ') {
		s = strings.ReplaceAll(s, "İ", "i̇") // the only character whose lower case is two (SpecialCasing.txt)
	}
	return strings.Map(unicode.ToLower, s)
}

// stripMarks leaves out combining marks (Mn, Mc, Me).
func stripMarks(s string) string { return without(s, unicode.M) }

func without(s string, t *unicode.RangeTable) string {
	return strings.Map(func(r rune) rune {
		if r >= 0x300 && unicode.Is(t, r) {
			return -1
		}
		return r
	}, s)
}

// nmt is the character filter of SentencePiece's nmt rules.
func nmt(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 1 && r <= 8, r == 0xb, r >= 0xe && r <= 0x1f, r == 0x7f, r == 0x8f, r == 0x9f:
			return -1
		case r == 9, r == 0xa, r == 0xc, r == 0xd, r == 0x1680, r >= 0x200b && r <= 0x200f, r == 0x2028, r == 0x2029, r == 0x2581, r == 0xfeff, r == 0xfffd:
			return ' '
		}
		return r
	}, s)
}

type bertNormalizer struct {
	Clean   bool  `json:"clean_text"`
	Chinese bool  `json:"handle_chinese_chars"`
	Accents *bool `json:"strip_accents"` // null: as Lower
	Lower   bool  `json:"lowercase"`
}

func (b *bertNormalizer) normalize(s string) string {
	if b.Clean || b.Chinese {
		s = b.clean(s)
	}
	if b.Accents == nil && b.Lower || b.Accents != nil && *b.Accents {
		if !ascii(s) {
			s = without(norm.NFD.String(s), unicode.Mn)
		}
	}
	if b.Lower {
		s = lower(s)
	}
	return s
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func (b *bertNormalizer) clean(s string) string {
	var out strings.Builder
	out.Grow(len(s) + 8)
	for _, r := range s {
		if b.Clean {
			switch {
			case r == 0 || r == utf8.RuneError || isControl(r):
				continue
			case unicode.IsSpace(r):
				r = ' '
			}
		}
		if b.Chinese && r >= 0x3400 && isChinese(r) {
			out.WriteByte(' ')
			out.WriteRune(r)
			out.WriteByte(' ')
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}

// isControl is what BERT leaves out: categories Cc, Cf and Co, but for the white space among them.
func isControl(r rune) bool {
	if r == '\t' || r == '\n' || r == '\r' {
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co)
}

// isChinese are the blocks of CJK ideographs, as BERT takes them.
func isChinese(r rune) bool {
	return r >= 0x4e00 && r <= 0x9fff || r >= 0x3400 && r <= 0x4dbf || r >= 0x20000 && r <= 0x2a6df || r >= 0x2a700 && r <= 0x2b73f ||
		r >= 0x2b740 && r <= 0x2b81f || r >= 0x2b920 && r <= 0x2ceaf || r >= 0xf900 && r <= 0xfaff || r >= 0x2f800 && r <= 0x2fa1f
}

// The letters that stand for bytes in byte-level vocabularies: printable ones for themselves, the others from U+0100 on.
var (
	letterOf [256]rune
	byteOf   = map[rune]byte{}
)

func init() {
	next := rune(256)
	for b := range 256 {
		r := rune(b)
		if !(b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae) {
			r = next
			next++
		}
		letterOf[b], byteOf[r] = r, byte(b)
	}
}

// byteLetters writes each byte of s as its letter.
func byteLetters(s string) string {
	var out strings.Builder
	for i := range len(s) {
		out.WriteRune(letterOf[s[i]])
	}
	return out.String()
}

// bytesOf is the way back; ok is false if a character stands for no byte.
func bytesOf(s string) (raw string, ok bool) {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		b, ok := byteOf[r]
		if !ok {
			return s, false
		}
		out = append(out, b)
	}
	return string(out), true
}
