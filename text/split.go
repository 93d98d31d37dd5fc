package text

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// splitter divides normalised text into the pieces that the model sees. first says that s begins the whole text.
type splitter interface {
	split(s string, first bool, emit func(piece string))
}

type splitters []splitter

func (l splitters) split(s string, first bool, emit func(string)) {
	switch len(l) {
	case 0:
		emit(s)
	case 1:
		l[0].split(s, first, emit)
	default:
		n := 0
		l[0].split(s, first, func(p string) {
			l[1:].split(p, first && n == 0, emit)
			n++
		})
	}
}

func parseSplitter(j json.RawMessage) (splitter, error) {
	if absent(j) {
		return nil, nil
	}
	kind, err := typeOf(j)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "Sequence":
		var p struct{ Pretokenizers []json.RawMessage }
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		l, err := parseEach(p.Pretokenizers, "pre_tokenizer", parseSplitter)
		if err != nil {
			return nil, err
		}
		return splitters(l), nil
	case "ByteLevel":
		b := &byteLevel{Prefix: true, Regex: true}
		return b, json.Unmarshal(j, b)
	case "BertPreTokenizer":
		return scanner(bertWords), nil
	case "Whitespace":
		return scanner(wordsAndSigns), nil
	case "WhitespaceSplit":
		return scanner(func(s string, emit func(string)) { fields(s, unicode.IsSpace, emit) }), nil
	case "Metaspace":
		return parseMetaspace(j)
	case "Digits":
		var p struct {
			Single bool `json:"individual_digits"`
		}
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		how := contiguous
		if p.Single {
			how = isolated
		}
		return &cutter{runes(func(r rune) bool { return r >= '0' && unicode.IsNumber(r) }), how, false}, nil
	case "Punctuation":
		p := struct{ Behavior string }{"Isolated"}
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		how, err := behaviorOf(p.Behavior)
		return &cutter{runes(isPunctuation), how, false}, err
	case "CharDelimiterSplit":
		var p struct{ Delimiter string }
		if err := json.Unmarshal(j, &p); err != nil {
			return nil, err
		}
		r, n := utf8.DecodeRuneInString(p.Delimiter)
		if n == 0 || n != len(p.Delimiter) {
			return nil, fmt.Errorf("delimiter: %q is not one character", p.Delimiter)
		}
		return &cutter{runes(func(c rune) bool { return c == r }), removed, false}, nil
	case "Split":
		return parseSplit(j)
	}
	return nil, unknown(kind, "Sequence", "ByteLevel", "BertPreTokenizer", "Whitespace", "WhitespaceSplit", "Metaspace", "Digits", "Punctuation", "CharDelimiterSplit", "Split")
}

// scanner is a splitter that does not care where the text begins.
type scanner func(s string, emit func(string))

func (f scanner) split(s string, _ bool, emit func(string)) { f(s, emit) }

// fields gives the stretches of s between characters for which is holds.
func fields(s string, is func(rune) bool, emit func(string)) {
	start := -1
	for i, r := range s {
		if is(r) {
			if start >= 0 {
				emit(s[start:i])
			}
			start = -1
		} else if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		emit(s[start:])
	}
}

// bertWords leaves out white space and sets punctuation apart.
func bertWords(s string, emit func(string)) {
	start := -1
	for i, r := range s {
		space, sign := unicode.IsSpace(r), isPunctuation(r)
		if (space || sign) && start >= 0 {
			emit(s[start:i])
			start = -1
		}
		switch {
		case sign:
			emit(s[i : i+utf8.RuneLen(r)])
		case !space && start < 0:
			start = i
		}
	}
	if start >= 0 {
		emit(s[start:])
	}
}

// isPunctuation is ASCII punctuation and signs, and beyond it the categories P.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return r >= '!' && r <= '/' || r >= ':' && r <= '@' || r >= '[' && r <= '`' || r >= '{' && r <= '~'
	}
	return unicode.Is(unicode.P, r)
}

// wordsAndSigns is \w+|[^\w\s]+
func wordsAndSigns(s string, emit func(string)) {
	start, was := 0, 0
	for i, r := range s {
		kind := 2
		switch {
		case unicode.IsSpace(r):
			kind = 0
		case isWord(r):
			kind = 1
		}
		if kind != was {
			if was != 0 {
				emit(s[start:i])
			}
			start, was = i, kind
		}
	}
	if was != 0 {
		emit(s[start:])
	}
}

// byteLevel divides as GPT-2 does and writes each byte as a letter.
type byteLevel struct {
	Prefix bool `json:"add_prefix_space"`
	Regex  bool `json:"use_regex"`
	raw    bool // leave the bytes as they are: the model takes them so
}

func (b *byteLevel) split(s string, _ bool, emit func(string)) {
	if b.Prefix && !strings.HasPrefix(s, " ") {
		s = " " + s
	}
	if !b.raw {
		plain := emit
		emit = func(p string) { plain(byteLetters(p)) }
	}
	if b.Regex {
		gpt2Pieces(s, emit)
	} else {
		emit(s)
	}
}

// rawBytes makes a splitter that ends in byteLevel leave bytes as they are, and says whether it is one.
func rawBytes(s splitter) bool {
	switch s := s.(type) {
	case *byteLevel:
		s.raw = true
		return true
	case splitters:
		return len(s) > 0 && rawBytes(s[len(s)-1])
	}
	return false
}

// metaspace writes spaces as a visible sign and divides before it.
type metaspace struct {
	sign    string
	prepend string // always, first or never
	cut     bool
}

func parseMetaspace(j json.RawMessage) (*metaspace, error) {
	p := struct {
		Replacement string
		Scheme      string `json:"prepend_scheme"`
		Prefix      *bool  `json:"add_prefix_space"` // of old files
		Split       *bool
	}{Replacement: "▁"}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	if p.Scheme == "" {
		p.Scheme = "always"
		if p.Prefix != nil && !*p.Prefix {
			p.Scheme = "never"
		}
	}
	if p.Scheme != "always" && p.Scheme != "first" && p.Scheme != "never" {
		return nil, fmt.Errorf("prepend_scheme: %q is not always, first or never", p.Scheme)
	}
	if p.Replacement == "" {
		return nil, errors.New("replacement: it is empty")
	}
	return &metaspace{p.Replacement, p.Scheme, p.Split == nil || *p.Split}, nil
}

func (m *metaspace) split(s string, first bool, emit func(string)) {
	s = strings.ReplaceAll(s, " ", m.sign)
	if (m.prepend == "always" || m.prepend == "first" && first) && !strings.HasPrefix(s, m.sign) {
		s = m.sign + s
	}
	if !m.cut {
		emit(s)
		return
	}
	start := 0
	for i := len(m.sign); i < len(s); {
		n := strings.Index(s[i:], m.sign)
		if n < 0 {
			break
		}
		if i+n > start {
			emit(s[start : i+n])
		}
		start = i + n
		i = start + len(m.sign)
	}
	if start < len(s) {
		emit(s[start:])
	}
}

// behavior is what becomes of the matches at which text is cut.
type behavior int

const (
	removed behavior = iota
	isolated
	mergedWithPrevious
	mergedWithNext
	contiguous
)

func behaviorOf(s string) (behavior, error) {
	for i, b := range []string{"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"} {
		if s == b {
			return behavior(i), nil
		}
	}
	return 0, fmt.Errorf("behavior: %q is not Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous", s)
}

// matcher finds matches in order; none of them overlap.
type matcher interface {
	each(s string, f func(from, to int))
}

// runes are single characters for which the function holds.
type runes func(r rune) bool

func (is runes) each(s string, f func(from, to int)) {
	for i, r := range s {
		if is(r) {
			f(i, i+utf8.RuneLen(r))
		}
	}
}

type literal string

func (l literal) each(s string, f func(from, to int)) {
	for i := 0; ; {
		n := strings.Index(s[i:], string(l))
		if n < 0 {
			return
		}
		f(i+n, i+n+len(l))
		i += n + len(l)
	}
}

// cutter cuts text at matches.
type cutter struct {
	at     matcher
	how    behavior
	invert bool // what lies between the matches counts as the match
}

func parseSplit(j json.RawMessage) (splitter, error) {
	var p struct {
		Pattern  textPattern
		Behavior string
		Invert   bool
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	how, err := behaviorOf(p.Behavior)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Pattern.Regex != nil:
		if f := fastPieces(*p.Pattern.Regex); f != nil && (how == isolated || how == removed && p.Invert) {
			return scanner(f), nil
		}
		e, err := compile(*p.Pattern.Regex)
		return &cutter{e, how, p.Invert}, err
	case p.Pattern.String != nil && *p.Pattern.String != "":
		return &cutter{literal(*p.Pattern.String), how, p.Invert}, nil
	}
	return nil, errors.New("pattern: it has neither a String nor a Regex")
}

func (c *cutter) split(s string, _ bool, emit func(string)) {
	type span struct {
		from, to int
		match    bool
	}
	var spans []span
	done := 0
	c.at.each(s, func(from, to int) {
		if from > done {
			spans = append(spans, span{done, from, c.invert})
		}
		if to > from {
			spans = append(spans, span{from, to, !c.invert})
		}
		done = to
	})
	if done < len(s) {
		spans = append(spans, span{done, len(s), c.invert})
	}
	for i := 0; i < len(spans); i++ {
		x := spans[i]
		switch c.how {
		case removed:
			if x.match {
				continue
			}
		case contiguous:
			for i+1 < len(spans) && spans[i+1].match == x.match {
				i++
				x.to = spans[i].to
			}
		case mergedWithPrevious:
			if !x.match && i+1 < len(spans) && spans[i+1].match {
				i++
				x.to = spans[i].to
			}
		case mergedWithNext:
			if x.match && i+1 < len(spans) && !spans[i+1].match {
				i++
				x.to = spans[i].to
			}
		}
		emit(s[x.from:x.to])
	}
}
