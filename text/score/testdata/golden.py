"""Makes golden.json, the scores that the tests compare with. Needs sacrebleu 2.6.0 and rouge-score 0.1.2:  python golden.py"""
import json, pathlib
import sacrebleu
from rouge_score import rouge_scorer

sets = {
    "sentences": [
        ("Das Paket enthält die Bibliothek.", "Dieses Paket enthält die gemeinsame Bibliothek."),
        ("Ein kleiner, schneller Editor (für X11) - Version 2.5-3", "Ein kleiner und schneller Editor für X11, Version 2.5-3."),
        ("&quot;Zitat&quot; &amp;lt; 1,000.50 US-$", "\"Zitat\" < 1,000.50 US-$"),
        ("", "Nichts."),
        ("wort", "wort"),
        ("a b c d e f g", "a b c d e f g"),
        ("the the the the", "the cat is on the mat"),
        ("http://example.org/x_y?z=1&w=2 [siehe] {hier} <da>", "http://example.org/x_y?z=1 [siehe] {dort} <da>"),
        ("Umlaute: ÄÖÜ äöü ß – „Anführung“ …", "Umlaute: ÄÖÜ äöü ß - „Anführung“ ..."),
    ],
    "nothing right": [("x y z", "a b c"), ("q", "r")],
    "short": [("library", "library for reading files"), ("tool", "a tool")],
    "long": [("a tool that reads and writes files, and more files, of many kinds and sizes", "a tool to read files")],
    "only pairs": [("a b x", "a b y"), ("c d", "c d")],
}
scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False)
out = {}
for name, pairs in sets.items():
    w, r = [p[0] for p in pairs], [p[1] for p in pairs]
    b = sacrebleu.corpus_bleu(w, [r])
    s = [scorer.score(y, x) for x, y in pairs]
    mean = lambda k: sum(q[k].fmeasure for q in s) / len(s)
    out[name] = {"written": w, "references": r, "bleu": b.score, "precisions": b.precisions, "brevity": b.bp, "length": b.sys_len, "reference": b.ref_len,
                 "rouge": [mean("rouge1"), mean("rouge2"), mean("rougeL")]}
(pathlib.Path(__file__).parent / "golden.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
