package text

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// decoder turns tokens into pieces of text; joined, they are the text.
type decoder interface {
	decode(tokens []string) []string
}

type decode func(tokens []string) []string

func (f decode) decode(tokens []string) []string { return f(tokens) }

func parseDecoder(j json.RawMessage) (decoder, error) {
	if absent(j) {
		return nil, nil
	}
	var p struct {
		Type        string
		Decoders    []json.RawMessage
		Prefix      *string
		Cleanup     *bool
		Suffix      *string
		Pattern     textPattern
		Content     string
		Start, Stop int
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	switch p.Type {
	case "Sequence":
		l, err := parseEach(p.Decoders, "decoder", parseDecoder)
		if err != nil {
			return nil, err
		}
		return decode(func(ts []string) []string {
			for _, d := range l {
				ts = d.decode(ts)
			}
			return ts
		}), nil
	case "ByteLevel":
		return decode(decodeBytes), nil
	case "WordPiece":
		prefix, clean := "##", p.Cleanup == nil || *p.Cleanup
		if p.Prefix != nil {
			prefix = *p.Prefix
		}
		return each(func(i int, s string) string {
			if i > 0 {
				if rest, ok := strings.CutPrefix(s, prefix); ok {
					s = rest
				} else {
					s = " " + s
				}
			}
			if clean {
				s = cleanUp(s)
			}
			return s
		}), nil
	case "Metaspace":
		m, err := parseMetaspace(j)
		if err != nil {
			return nil, err
		}
		return each(func(i int, s string) string {
			if i == 0 && m.prepend != "never" {
				s = strings.TrimPrefix(s, m.sign)
			}
			return strings.ReplaceAll(s, m.sign, " ")
		}), nil
	case "BPEDecoder":
		suffix := "</w>"
		if p.Suffix != nil {
			suffix = *p.Suffix
		}
		return decode(func(ts []string) []string {
			out := make([]string, len(ts))
			for i, s := range ts {
				to := " "
				if i == len(ts)-1 {
					to = ""
				}
				out[i] = strings.ReplaceAll(s, suffix, to)
			}
			return out
		}), nil
	case "ByteFallback":
		return decode(decodeFallback), nil
	case "Fuse":
		return decode(func(ts []string) []string { return []string{strings.Join(ts, "")} }), nil
	case "Strip":
		if p.Start < 0 || p.Stop < 0 {
			return nil, fmt.Errorf("start and stop must not be negative")
		}
		return each(func(_ int, s string) string {
			for k := 0; k < p.Start && p.Content != "" && strings.HasPrefix(s, p.Content); k++ {
				s = s[len(p.Content):]
			}
			for k := 0; k < p.Stop && p.Content != "" && strings.HasSuffix(s, p.Content); k++ {
				s = s[:len(s)-len(p.Content)]
			}
			return s
		}), nil
	case "Replace":
		n, err := parseReplace(j)
		if err != nil {
			return nil, err
		}
		return each(func(_ int, s string) string { return n.normalize(s) }), nil
	}
	return nil, unknown(p.Type, "Sequence", "ByteLevel", "WordPiece", "Metaspace", "BPEDecoder", "ByteFallback", "Fuse", "Strip", "Replace")
}

// each changes every token by itself.
func each(f func(i int, s string) string) decoder {
	return decode(func(ts []string) []string {
		out := make([]string, len(ts))
		for i, s := range ts {
			out[i] = f(i, s)
		}
		return out
	})
}

// cleanUp takes out the spaces that WordPiece puts before signs.
func cleanUp(s string) string {
	for _, r := range [][2]string{{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"}, {" n't", "n't"}, {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}} {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// decodeBytes reads letters as bytes. A token with a character that stands for none is text as it is.
func decodeBytes(tokens []string) []string {
	var b []byte
	for _, s := range tokens {
		raw, _ := bytesOf(s)
		b = append(b, raw...)
	}
	return []string{string(lossy(b))}
}

// decodeFallback reads tokens like <0xE2>, of which several one after another make characters; bytes that do not become U+FFFD each.
func decodeFallback(tokens []string) []string {
	var out []string
	var b []byte
	flush := func() {
		if len(b) == 0 {
			return
		}
		if utf8.Valid(b) {
			out = append(out, string(b))
		} else {
			for range b {
				out = append(out, "\uFFFD")
			}
		}
		b = b[:0]
	}
	for _, s := range tokens {
		if len(s) == 6 && strings.HasPrefix(s, "<0x") && s[5] == '>' {
			if v, err := strconv.ParseUint(s[3:5], 16, 8); err == nil {
				b = append(b, byte(v))
				continue
			}
		}
		flush()
		out = append(out, s)
	}
	flush()
	return out
}
