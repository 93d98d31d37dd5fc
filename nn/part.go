package nn

import "strings"

// The parts of sequence models that an account keeps apart; see Model.Part.
const (
	PartAttention   = "attention"     // scores, softmax and weighted sums
	PartProjections = "projections"   // queries, keys, values, and what follows attention
	PartFeedForward = "feed-forward"  // of Transformer blocks
	PartRecurrent   = "recurrent"     // products and cells of recurrent layers
	PartEmbedding   = "embedding"     // tokens and positions
	PartNorm        = "normalisation" // layer and RMS norms
	PartScores      = "scores"        // the last dense layer: over the vocabulary, of a language model; and what a PointerGenerator makes of it
	PartLoss        = "softmax, loss"
	PartOther       = "other layers"
)

// Parts lists the parts in the order in which reports print them.
func Parts() []string {
	return []string{PartEmbedding, PartNorm, PartProjections, PartAttention, PartFeedForward, PartRecurrent, PartOther, PartScores, PartLoss}
}

// Part is which part of a sequence model a layer's path (the scope of a node, such as "block/attention/query") belongs to.
func (m *Model) Part(path string) string {
	segs := strings.Split(path, "/")
	last := segs[len(segs)-1]
	if segs[0] == "loss" {
		return PartLoss
	}
	for _, s := range segs[1:] {
		switch {
		case strings.HasSuffix(s, "_norm"):
			return PartNorm
		case s == "feed_forward":
			return PartFeedForward
		}
	}
	if len(segs) > 1 {
		switch last {
		case "query", "key", "value", "attention_output":
			return PartProjections
		case "attention", "cross_attention":
			return PartAttention
		}
	}
	class, final := "", false
	for i, l := range m.layers {
		if l.name == segs[0] {
			class, final = l.class, i == len(m.layers)-1
		}
	}
	switch class {
	case "Embedding", "PositionEmbedding", "SinePositionEncoding", "PatchEmbedding":
		return PartEmbedding
	case "MultiHeadAttention", "Attention", "AdditiveAttention":
		return PartAttention
	case "SimpleRNN", "LSTM", "GRU", "Bidirectional", "AttentionDecoder":
		return PartRecurrent
	case "LayerNormalization", "RMSNormalization":
		return PartNorm
	case "PointerGenerator":
		return PartScores
	}
	if final && class == "Dense" || final && class == "Embedding" {
		return PartScores
	}
	return PartOther
}

// Sequences reports whether the model has layers that read sequences.
func (m *Model) Sequences() bool {
	for _, l := range m.layers {
		switch l.class {
		case "Embedding", "MultiHeadAttention", "Attention", "AdditiveAttention", "SimpleRNN", "LSTM", "GRU", "Bidirectional", "AttentionDecoder", "TransformerBlock":
			return true
		}
	}
	return false
}

// WithPositions is the layer, or if it has learned positions and fewer than n, one like it that has n: for a look at what a longer sequence costs.
func (l *Layer) WithPositions(n int) *Layer {
	p, ok := l.kind.(*positions)
	if !ok || p.Length >= n {
		return l
	}
	return &Layer{class: l.class, name: l.name, kind: &positions{n, p.Init}, site: l.site}
}
