package generate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/jouleml/joule/internal/atomicfile"
	"github.com/jouleml/joule/transfer"
)

// onceMagic begins a file of texts: behind it are the texts as a JSON list, and the SHA-256 of all that. Its name is a hash of the model, of what it was asked for and of what it read.
const onceMagic = "joule texts 1\n"

// onceBlock is how many texts a file is about. A search that is stopped goes on behind the last whole one.
const onceBlock = 2048

// maxOnce bounds the size of a file of texts that is read.
const maxOnce = 1 << 28

// Once is what Run writes about texts, kept in files of the folder cache: a model writes once about the same texts with the same options, such as the teacher of a smaller one (sequence-level
// distillation, Kim & Rush, arXiv:1606.07947). computed is about how many texts it has written now; what it has written about the others was there.
func (a *Answerer) Once(ctx context.Context, texts []string, o Options, cache string) (written []string, computed int, err error) {
	sum := sha256.New()
	if err := transfer.HashModel(sum, a.m); err != nil {
		return nil, 0, err
	}
	model := sum.Sum(nil)
	for len(texts) > 0 {
		block := texts[:min(onceBlock, len(texts))]
		texts = texts[len(block):]
		asked, err := json.Marshal([]any{o, block})
		if err != nil {
			return nil, computed, fmt.Errorf("generate: %w", err)
		}
		sum.Reset()
		sum.Write(model)
		sum.Write(asked)
		path := filepath.Join(cache, hex.EncodeToString(sum.Sum(nil))[:32]+".texts")
		there, err := readOnce(path, len(block))
		if err != nil {
			return nil, computed, err
		}
		if there != nil {
			written = append(written, there...)
			continue
		}
		answers, err := a.Run(ctx, block, o)
		if err != nil {
			return nil, computed, err
		}
		own := make([]string, len(answers))
		for i := range answers {
			own[i] = answers[i].Text
		}
		if err := writeOnce(path, own); err != nil {
			return nil, computed, err
		}
		written = append(written, own...)
		computed += len(own)
	}
	return written, computed, nil
}

func writeOnce(path string, texts []string) error {
	if err := atomicfile.MkdirAll(filepath.Dir(path)); err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	list, err := json.Marshal(texts)
	if err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	all := append([]byte(onceMagic), list...)
	sum := sha256.Sum256(all)
	if err := atomicfile.WriteBytes(path, append(all, sum[:]...)); err != nil {
		return fmt.Errorf("generate: %w", err)
	}
	return nil
}

// readOnce reads a file of n texts; nil if there is none, or one that is damaged.
func readOnce(path string, n int) ([]string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	if info.Size() > maxOnce {
		return nil, nil
	}
	all, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	if len(all) < len(onceMagic)+sha256.Size {
		return nil, nil
	}
	body := all[:len(all)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], all[len(body):]) || !bytes.HasPrefix(body, []byte(onceMagic)) {
		return nil, nil
	}
	var texts []string
	if json.Unmarshal(body[len(onceMagic):], &texts) != nil || len(texts) != n {
		return nil, nil
	}
	return texts, nil
}
