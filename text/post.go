package text

import (
	"encoding/json"
	"fmt"
)

// framer puts tokens around those of one text or of a pair.
type framer interface {
	frame(a, b []int32, pair bool) (ids, types []int32)
}

func join(a, b []int32) (ids, types []int32) {
	ids = append(append([]int32(nil), a...), b...)
	types = make([]int32, len(ids))
	for i := len(a); i < len(ids); i++ {
		types[i] = 1
	}
	return ids, types
}

// template is a list of tokens and of places for the texts.
type template struct{ single, pair []place }

type place struct {
	text int // 0 or 1: the text; -1: the tokens
	ids  []int32
	kind int32
}

func (t *template) frame(a, b []int32, pair bool) (ids, types []int32) {
	places := t.single
	if pair {
		places = t.pair
	}
	for _, p := range places {
		x := p.ids
		switch p.text {
		case 0:
			x = a
		case 1:
			x = b
		}
		for _, id := range x {
			ids, types = append(ids, id), append(types, p.kind)
		}
	}
	return ids, types
}

func (t *Tokenizer) parseFramer(j json.RawMessage) (framer, error) {
	if absent(j) {
		return nil, nil
	}
	var p struct {
		Type          string
		Processors    []json.RawMessage
		Single, Pair  []piecePlace
		SpecialTokens map[string]struct{ IDs []int32 } `json:"special_tokens"`
		Sep, Cls      []any
	}
	if err := json.Unmarshal(j, &p); err != nil {
		return nil, err
	}
	switch p.Type {
	case "ByteLevel": // changes positions alone
		return nil, nil
	case "Sequence":
		var out framer
		for i, q := range p.Processors {
			f, err := t.parseFramer(q)
			if err != nil {
				return nil, fmt.Errorf("processor %d: %w", i, err)
			}
			if f != nil && out != nil {
				return nil, fmt.Errorf("processor %d: a second one that adds tokens is not supported", i)
			}
			if f != nil {
				out = f
			}
		}
		return out, nil
	case "BertProcessing", "RobertaProcessing":
		cls, err := special(p.Cls, "cls")
		if err != nil {
			return nil, err
		}
		sep, err := special(p.Sep, "sep")
		if err != nil {
			return nil, err
		}
		token := func(id, kind int32) place { return place{-1, []int32{id}, kind} }
		single := []place{token(cls, 0), {text: 0}, token(sep, 0)}
		if p.Type == "RobertaProcessing" {
			return &template{single, append(append([]place{}, single...), token(sep, 0), place{text: 1}, token(sep, 0))}, nil
		}
		return &template{single, append(append([]place{}, single...), place{text: 1, kind: 1}, token(sep, 1))}, nil
	case "TemplateProcessing":
		read := func(ps []piecePlace) (out []place, err error) {
			for i, q := range ps {
				switch {
				case q.Sequence != nil && (q.Sequence.ID == "A" || q.Sequence.ID == "B"):
					out = append(out, place{text: int(q.Sequence.ID[0] - 'A'), kind: q.Sequence.TypeID})
				case q.SpecialToken != nil:
					s, ok := p.SpecialTokens[q.SpecialToken.ID]
					if !ok {
						return nil, fmt.Errorf("special_tokens: %q of the template is missing", q.SpecialToken.ID)
					}
					out = append(out, place{-1, s.IDs, q.SpecialToken.TypeID})
				default:
					return nil, fmt.Errorf("entry %d of a template is neither a Sequence A or B nor a SpecialToken", i)
				}
			}
			return out, nil
		}
		single, err := read(p.Single)
		if err != nil {
			return nil, err
		}
		pair, err := read(p.Pair)
		return &template{single, pair}, err
	}
	return nil, unknown(p.Type, "TemplateProcessing", "BertProcessing", "RobertaProcessing", "ByteLevel", "Sequence")
}

type piecePlace struct {
	Sequence, SpecialToken *struct {
		ID     string
		TypeID int32 `json:"type_id"`
	}
}

// special reads ["[SEP]", 3].
func special(v []any, name string) (int32, error) {
	if len(v) == 2 {
		if id, ok := v[1].(float64); ok && id >= 0 && id < maxVocabulary {
			return int32(id), nil
		}
	}
	return 0, fmt.Errorf("%s: want a token and its number, such as [\"[SEP]\", 3]", name)
}
