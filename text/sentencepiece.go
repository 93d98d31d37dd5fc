package text

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// The types of pieces in a SentencePiece model (sentencepiece_model.proto).
const (
	spNormal      = 1
	spUnknown     = 2
	spControl     = 3
	spUserDefined = 4
	spUnused      = 5
	spByte        = 6
)

// spFile is a SentencePiece model as a model of tokenizer.json, of a type of Joule's own: what tokenizer.json has otherwise cannot say all of it.
type spFile struct {
	Type      string   `json:"type"`
	Kind      string   `json:"kind"` // unigram or bpe
	Pieces    [][3]any `json:"pieces"`
	Unknown   int      `json:"unk_id"`
	Bytes     bool     `json:"byte_fallback"`
	CharsMap  string   `json:"precompiled_charsmap"`
	Dummy     bool     `json:"add_dummy_prefix"`
	Extra     bool     `json:"remove_extra_whitespaces"`
	AsSuffix  bool     `json:"treat_whitespace_as_suffix"`
	Surface   string   `json:"unk_surface"`
	NoEscapes bool     `json:"no_escape_whitespaces"`
}

const spType = "SentencePiece"

// sentencePiece normalises and divides as SentencePiece does.
type sentencePiece struct {
	spFile
	*vocabulary
	chars   *charsMap
	kinds   []int
	defined *trie // user-defined pieces; nil: none
	uni     *unigram
	bpe     *bpe
	control map[string]bool
}

// ParseSentencePiece reads a .model file of SentencePiece: unigram or BPE.
func ParseSentencePiece(b []byte) (*Tokenizer, error) {
	f := spFile{Type: spType, Kind: "unigram", Dummy: true, Extra: true, Surface: " \u2047 "}
	var charsMap []byte
	err := protoFields(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 1:
			piece, score, kind := "", 0.0, uint64(spNormal)
			err := protoFields(v, func(num protowire.Number, v []byte, n uint64) error {
				switch num {
				case 1:
					piece = string(v)
				case 2:
					score = float64(math.Float32frombits(uint32(n)))
				case 3:
					kind = n
				}
				return nil
			})
			if kind == spUnknown {
				f.Unknown = len(f.Pieces)
			}
			f.Pieces = append(f.Pieces, [3]any{piece, score, float64(kind)})
			return err
		case 2:
			return protoFields(v, func(num protowire.Number, v []byte, n uint64) error {
				switch num {
				case 3:
					f.Kind = map[uint64]string{1: "unigram", 2: "bpe", 3: "word", 4: "char"}[n]
				case 24:
					f.AsSuffix = n != 0
				case 35:
					f.Bytes = n != 0
				case 44:
					f.Surface = string(v)
				}
				return nil
			})
		case 3:
			return protoFields(v, func(num protowire.Number, v []byte, n uint64) error {
				switch num {
				case 2:
					charsMap = v
				case 3:
					f.Dummy = n != 0
				case 4:
					f.Extra = n != 0
				case 5:
					f.NoEscapes = n == 0
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("text: SentencePiece model: %w", err)
	}
	f.CharsMap = base64.StdEncoding.EncodeToString(charsMap)
	j, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("text: SentencePiece model: %w", err)
	}
	t := &Tokenizer{file: file{Version: "1.0", AddedTokens: []addedToken{}, Model: j}}
	return t, t.build()
}

// protoFields calls f with each field of a message: v of those with a length, n of numbers.
func protoFields(b []byte, f func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		var x uint64
		switch kind {
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var y uint32
			y, n = protowire.ConsumeFixed32(b)
			x = uint64(y)
		case protowire.Fixed64Type:
			x, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, v, x); err != nil {
			return err
		}
	}
	return nil
}

func parseSentencePieceModel(j json.RawMessage) (*sentencePiece, error) {
	m := &sentencePiece{control: map[string]bool{}}
	if err := json.Unmarshal(j, &m.spFile); err != nil {
		return nil, err
	}
	n := len(m.Pieces)
	if m.Unknown < 0 || m.Unknown >= n {
		return nil, fmt.Errorf("unk_id: %d is outside [0, %d)", m.Unknown, n)
	}
	b, err := base64.StdEncoding.DecodeString(m.CharsMap)
	if err != nil {
		return nil, fmt.Errorf("precompiled_charsmap: %w", err)
	}
	if m.chars, err = parseCharsMap(b); err != nil {
		return nil, err
	}
	tokens, scores := make([]string, n), make([]float64, n)
	m.kinds = make([]int, n)
	defined := newTrieBuilder()
	top := math.Inf(-1)
	for i, p := range m.Pieces {
		s, ok := p[0].(string)
		x, ok2 := p[1].(float64)
		k, ok3 := p[2].(float64)
		if !ok || !ok2 || !ok3 || s == "" {
			return nil, fmt.Errorf("pieces: entry %d is not a piece, its score and its type", i)
		}
		tokens[i], scores[i], m.kinds[i] = s, x, int(k)
		switch m.kinds[i] {
		case spUserDefined:
			defined.add(s, int32(i))
		case spControl:
			m.control[s] = true
		case spNormal:
			top = max(top, x)
		}
	}
	if len(defined.nodes) > 1 {
		m.defined = defined.build()
	}
	for i, s := range tokens {
		if m.kinds[i] == spUserDefined { // above every division
			scores[i] = float64(len(s))*top - 0.1
		}
	}
	skip := func(i int) bool { return m.kinds[i] != spNormal && m.kinds[i] != spUserDefined }
	switch m.Kind {
	case "unigram":
		if m.uni, err = newUnigram(tokens, scores, int32(m.Unknown), m.Bytes, skip); err != nil {
			return nil, err
		}
		m.uni.least = math.Inf(1)
		for i, x := range scores {
			if m.kinds[i] == spNormal {
				m.uni.least = min(m.uni.least, x)
			}
		}
		m.vocabulary = m.uni.vocabulary
	case "bpe":
		return m, m.asBPE(tokens, scores, skip)
	default:
		return nil, unknown(m.Kind, "unigram", "bpe")
	}
	return m, nil
}

// asBPE makes the model that joins neighbours whose text is a piece, that of the greatest score first.
func (m *sentencePiece) asBPE(tokens []string, scores []float64, skip func(int) bool) error {
	order := make([]int, len(tokens))
	has := make([]bool, len(tokens))
	ids := map[string]int32{}
	m.vocabulary = &vocabulary{ids, tokens, has}
	pieces := map[string]int32{}
	for i, s := range tokens {
		order[i], has[i] = i, true
		if x := scores[i]; x-x != 0 && m.kinds[i] == spNormal {
			return fmt.Errorf("pieces: the score of %q is %g", s, x)
		}
		if _, twice := ids[s]; !twice {
			ids[s] = int32(i)
		}
		if !skip(i) {
			pieces[s] = int32(i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case scores[a] > scores[b]:
			return -1
		case scores[a] < scores[b]:
			return 1
		}
		return 0
	})
	b := &bpe{vocabulary: &vocabulary{pieces, tokens, has}, ranked: true, ranks: make([]int32, len(tokens)), unknown: int32(m.Unknown), fuse: true}
	for rank, i := range order {
		b.ranks[i] = int32(rank)
	}
	if m.Bytes {
		for i := range 256 {
			id, ok := ids[byteToken(byte(i))]
			if !ok {
				return fmt.Errorf("byte_fallback: the pieces lack %s", byteToken(byte(i)))
			}
			b.bytes = append(b.bytes, id)
		}
	}
	m.bpe = b
	return nil
}

const spSpace = "▁"

// normalize is SentencePiece's normaliser: its rules, and what it does about spaces.
func (m *sentencePiece) normalize(s string) string {
	next := func() (to string, n int) {
		if m.defined != nil {
			if n, _ := m.defined.longest(s); n > 0 {
				return s[:n], n
			}
		}
		if n, to := m.chars.find(s); n > 0 {
			return to, n
		}
		_, n = utf8.DecodeRuneInString(s)
		return s[:n], n
	}
	for m.Extra && s != "" {
		to, n := next()
		if to != " " {
			break
		}
		s = s[n:]
	}
	if s == "" {
		return ""
	}
	space := spSpace
	if m.NoEscapes {
		space = " "
	}
	var out strings.Builder
	out.Grow(len(s) + len(s)/4 + 8)
	if m.Dummy && !m.AsSuffix {
		out.WriteString(space)
	}
	after := m.Extra // a space
	for s != "" {
		to, n := next()
		s = s[n:]
		for after && strings.HasPrefix(to, " ") {
			to = to[1:]
		}
		if to != "" {
			after = m.Extra && strings.HasSuffix(to, " ")
			if strings.Contains(to, " ") {
				to = strings.ReplaceAll(to, " ", space)
			}
			out.WriteString(to)
		}
	}
	t := out.String()
	for m.Extra && strings.HasSuffix(t, space) {
		t = t[:len(t)-len(space)]
	}
	if m.Dummy && m.AsSuffix {
		t += space
	}
	return t
}

func (m *sentencePiece) encode(out []int32, piece string, w *pieces) ([]int32, error) {
	if m.uni != nil {
		return m.uni.encode(out, piece, w)
	}
	from := 0
	var err error
	flush := func(to int) {
		if err == nil && to > from {
			out, err = m.bpe.encode(out, piece[from:to], w)
		}
	}
	for i := 0; m.defined != nil && i < len(piece); {
		n, id := m.defined.longest(piece[i:])
		if n == 0 {
			i++
			continue
		}
		flush(i)
		out = append(out, id)
		i += n
		from = i
	}
	flush(len(piece))
	return out, err
}

// decode is the way back from pieces.
func (m *sentencePiece) decode(tokens []string) []string {
	var out strings.Builder
	seen := false // the space that normalising puts before a text
	var raw []byte
	flush := func() {
		out.Write(lossyBytes(raw))
		raw = raw[:0]
	}
	unknown := m.tokens[m.Unknown]
	for _, s := range tokens {
		if m.Bytes {
			if id, ok := m.ids[s]; ok && m.kinds[id] == spByte {
				var b byte
				if _, err := fmt.Sscanf(s, "<0x%02X>", &b); err == nil {
					raw = append(raw, b)
					continue
				}
			}
		}
		flush()
		switch {
		case m.control[s]:
			continue
		case s == unknown:
			out.WriteString(m.Surface)
			continue
		}
		if !seen && out.Len() == 0 && (m.Dummy || m.Extra) {
			rest, cut := strings.CutPrefix(s, spSpace)
			s = rest
			seen = cut && !m.Extra
		}
		out.WriteString(strings.ReplaceAll(s, spSpace, " "))
	}
	flush()
	return []string{out.String()}
}

// lossyBytes is b with each byte that is part of no character replaced.
func lossyBytes(b []byte) []byte {
	if utf8.Valid(b) {
		return b
	}
	var out []byte
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		out = utf8.AppendRune(out, r)
		b = b[n:]
	}
	return out
}

func (t *Tokenizer) buildSentencePiece() error {
	m, err := parseSentencePieceModel(t.file.Model)
	if err != nil {
		return err
	}
	if !absent(t.file.Normalizer) || !absent(t.file.PreTokenizer) || !absent(t.file.Decoder) {
		return errors.New("a SentencePiece model has a normalizer, pre_tokenizer and decoder of its own")
	}
	t.model, t.norm, t.back = m, m, m
	return nil
}
