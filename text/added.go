package text

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens.
type addedToken struct {
	ID         int64  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// addedTokens are found in the text itself (raw) or in the normalised text (normal).
type addedTokens struct {
	tokens      map[int32]addedToken
	ids         map[string]int32
	size        int
	raw, normal *finder
}

// finder finds added tokens by their first byte; the longest of those that begin at a place counts.
type finder struct {
	first [256]bool
	by    map[byte][]found // longest first
}

type found struct {
	text  string
	id    int32
	token addedToken
}

func newAddedTokens(list []addedToken, norm normalizer) (*addedTokens, error) {
	a := &addedTokens{tokens: map[int32]addedToken{}, ids: map[string]int32{}, raw: &finder{by: map[byte][]found{}}, normal: &finder{by: map[byte][]found{}}}
	for _, t := range list {
		if t.ID < 0 || t.ID >= maxVocabulary {
			return nil, fmt.Errorf("token %q has the number %d, outside [0, %d)", t.Content, t.ID, maxVocabulary)
		}
		if t.Content == "" {
			continue
		}
		id := int32(t.ID)
		a.tokens[id], a.ids[t.Content] = t, id
		a.size = max(a.size, int(id)+1)
		f, s := a.raw, t.Content
		if t.Normalized {
			f = a.normal
			if norm != nil {
				s = norm.normalize(s)
			}
		}
		if s == "" {
			continue
		}
		f.first[s[0]] = true
		f.by[s[0]] = append(f.by[s[0]], found{s, id, t})
	}
	for _, f := range []*finder{a.raw, a.normal} {
		for _, l := range f.by {
			slices.SortStableFunc(l, func(x, y found) int { return len(y.text) - len(x.text) })
		}
	}
	return a, nil
}

func (a *addedTokens) token(id int32) (s string, special, ok bool) {
	t, ok := a.tokens[id]
	return t.Content, t.Special, ok
}

func (a *addedTokens) id(s string) (int32, bool) {
	id, ok := a.ids[s]
	return id, ok
}

// split gives f the added tokens in s, and with id -1 what lies between them. start says of s, and of what f is given, that the whole text begins there.
func (a *addedTokens) split(s string, in *finder, start bool, f func(part string, id int32, start bool) error) error {
	if len(in.by) == 0 {
		return f(s, -1, start)
	}
	done := 0 // up to which s has been given away
	for i := 0; i < len(s); i++ {
		if !in.first[s[i]] {
			continue
		}
		for _, t := range in.by[s[i]] {
			if !strings.HasPrefix(s[i:], t.text) {
				continue
			}
			from, to := i, i+len(t.text)
			if t.token.SingleWord && (endsInWord(s[:from]) || beginsWithWord(s[to:])) {
				i = to - 1 // the match is passed over as a whole
				break
			}
			if t.token.LStrip {
				from = max(done, len(strings.TrimRightFunc(s[:from], unicode.IsSpace)))
			}
			if t.token.RStrip {
				to = len(s) - len(strings.TrimLeftFunc(s[to:], unicode.IsSpace))
			}
			if from > done {
				if err := f(s[done:from], -1, start && done == 0); err != nil {
					return err
				}
			}
			if err := f(s[from:to], t.id, start && from == 0); err != nil {
				return err
			}
			done = to
			i = to - 1
			break
		}
	}
	if done < len(s) {
		return f(s[done:], -1, start && done == 0)
	}
	return nil
}

func isWord(r rune) bool {
	return r == '_' || unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc) || r == '\u200c' || r == '\u200d' || unicode.Is(unicode.Other_Alphabetic, r)
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWord(r)
}

func beginsWithWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWord(r)
}
