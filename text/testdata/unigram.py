"""Lets SentencePiece learn a unigram vocabulary, which TestUnigramTraining compares with.

Needs sentencepiece 0.2.3:  python unigram.py
The text is Newton's Opticks, data/text/opticks.txt.gz.
"""
import gzip, io, json, pathlib
import sentencepiece as spm

here = pathlib.Path(__file__).parent
lines = gzip.open(here / "../../data/text/opticks.txt.gz", "rt", encoding="utf-8").read().split("\n")
model = io.BytesIO()
spm.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=model, vocab_size=2000, model_type="unigram", num_threads=1, minloglevel=2)
sp = spm.SentencePieceProcessor(model_proto=model.getvalue())
out = {"pieces": [[sp.id_to_piece(i), sp.get_score(i)] for i in range(3, len(sp))], "tokens": sum(len(sp.encode(l)) for l in lines)}
buf = io.BytesIO()
with gzip.GzipFile(fileobj=buf, mode="wb", mtime=0, compresslevel=9) as z:
    z.write(json.dumps(out).encode())
(here / "unigram_train.json.gz").write_bytes(buf.getvalue())
