package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/jouleml/joule/dtype"
	"github.com/jouleml/joule/tensor"
	"github.com/jouleml/joule/text"
	"github.com/jouleml/joule/train"
	"github.com/jouleml/joule/transfer"
)

func embedCmd() *cobra.Command {
	var f modelFlags
	var ref, like string
	var batch, top int
	c := &cobra.Command{
		Use:   "embed FILE…",
		Short: "Make vectors of texts, one a line; or find the lines that are most like another text",
		Long: "Embed reads texts, one a line (- is the standard input), and prints the vector of each as a JSON line, or with --like the lines that are most like a text, with the cosine of their vectors. " +
			"The model is one that makes vectors of texts, such as all-minilm-l6-v2 (joule data get all-minilm-l6-v2), one in a folder of Hugging Face's, or one that joule quantize has made of it.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if batch < 1 || top < 1 {
				return usageError{errors.New("--batch and --top must be at least 1")}
			}
			m, _, err := f.load(ref)
			if err != nil {
				return err
			}
			if !embeds(m) {
				return fmt.Errorf("%s makes no vectors of texts; joule predict asks it for what it gives", ref)
			}
			texts, err := textLines(args, c.InOrStdin())
			if err != nil {
				return err
			}
			vectors, err := overTexts(m, texts, batch)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(c.OutOrStdout())
			defer out.Flush()
			if like == "" {
				for i, s := range texts {
					line, err := json.Marshal(struct {
						Text      string    `json:"text"`
						Embedding []float32 `json:"embedding"`
					}{s, vectors[i]})
					if err != nil {
						return err
					}
					fmt.Fprintf(out, "%s\n", line)
				}
				return nil
			}
			q, err := overTexts(m, []string{like}, 1)
			if err != nil {
				return err
			}
			order := make([]int, len(texts))
			score := make([]float64, len(texts))
			for i := range order {
				order[i], score[i] = i, cosine(q[0], vectors[i])
			}
			slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(score[b], score[a]) })
			for _, i := range order[:min(top, len(order))] {
				if f.json {
					if err := json.NewEncoder(out).Encode(map[string]any{"text": texts[i], "line": i + 1, "cosine": score[i]}); err != nil {
						return err
					}
					continue
				}
				fmt.Fprintf(out, "%.4f  %s\n", score[i], texts[i])
			}
			return nil
		},
	}
	f.add(c)
	f.on.add(c)
	c.Flags().StringVar(&ref, "run", "all-minilm-l6-v2", "the model: a name, a folder, a run or a model file")
	c.Flags().StringVar(&like, "like", "", "print the lines that are most like this text")
	c.Flags().IntVar(&top, "top", 10, "with --like: how many lines")
	c.Flags().IntVar(&batch, "batch", 32, "texts at a time")
	return c
}

// readsTexts reports whether a model takes the tokens of a text and their number.
func readsTexts(m *train.Model) bool {
	in := m.Spec.Inputs
	return len(in) == 2 && in[0].Name == "tokens" && len(in[0].Shape) == 1 && in[0].DType == dtype.I32 && in[1].Name == "length" && m.Spec.Tokenizer != nil
}

// embeds reports whether a model makes vectors of texts.
func embeds(m *train.Model) bool {
	t := m.Spec.Targets
	return readsTexts(m) && len(t) == 1 && t[0].Name == transfer.FieldEmbedding
}

// classifies reports whether a model says what class a text is of.
func classifies(m *train.Model) bool {
	t := m.Spec.Targets
	return readsTexts(m) && m.Spec.Classes > 0 && len(t) == 1 && len(t[0].Shape) == 0
}

// textLines are the lines of files that are not empty; without any it is an error.
func textLines(files []string, stdin io.Reader) ([]string, error) {
	all, err := lines(files, stdin)
	if err == nil && len(all) == 0 {
		err = errors.New("there are no texts: one a line is wanted")
	}
	return all, err
}

// overTexts is what a model gives for each text. Texts of one length go together, so that nothing is padding; lengths are rounded up to a few, for each needs a program.
func overTexts(m *train.Model, texts []string, batch int) ([][]float32, error) {
	k, err := text.Parse(m.Spec.Tokenizer)
	if err != nil {
		return nil, fmt.Errorf("the model's tokenizer: %w", err)
	}
	most := m.Spec.Inputs[0].Shape[0]
	tokens, order := make([][]int32, len(texts)), make([]int, len(texts))
	for i, s := range texts {
		if tokens[i], err = k.FrameShort(s, most); err != nil {
			return nil, err
		}
		order[i] = i
	}
	room := func(i int) int {
		n := 8
		for n < len(tokens[i]) {
			n += max(8, n/4/8*8)
		}
		return min(n, most)
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(room(a), room(b)) })
	out := make([][]float32, len(texts))
	for len(order) > 0 {
		n, t := 0, room(order[0])
		for n < min(batch, len(order)) && room(order[n]) == t {
			n++
		}
		x, length := tensor.New(dtype.I32, n, t), tensor.New(dtype.I32, n)
		for r, i := range order[:n] {
			copy(x.I32()[r*t:], tokens[i])
			length.I32()[r] = int32(len(tokens[i]))
		}
		y, err := m.PredictBatch(x, length)
		if err != nil {
			return nil, err
		}
		for r, i := range order[:n] {
			out[i] = slices.Clone(y.Slice(r, r+1).F32())
		}
		order = order[n:]
	}
	return out, nil
}

// cosine is that of the angle between two vectors, 0 if one has no length.
func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		ab, aa, bb = ab+float64(a[i])*float64(b[i]), aa+float64(a[i])*float64(a[i]), bb+float64(b[i])*float64(b[i])
	}
	return ab / math.Sqrt(max(aa*bb, 1e-60))
}
