"""Makes the tokenizers and the expected numbers that the tests of package text compare with, by the reference implementations.

Needs tokenizers 0.23.3, tiktoken 0.14.0 and sentencepiece 0.2.3:  python golden.py
The texts are corpus.txt, written for this purpose, and the edge cases below.
"""
import base64, gzip, io, json, pathlib
import sentencepiece as spm
import tiktoken
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

here = pathlib.Path(__file__).parent
corpus = (here / "corpus.txt").read_text(encoding="utf-8")
lines = corpus.splitlines()
edges = [
    "", " ", "  ", "\n", "a", " a", "a ", "  a  b  ", "a\n\nb", "a \n b\n", "\ta\t\tb", "a\r\nb\r\n\r\n", "\u00a0x\u00a0\u00a0y", "\u3000x\u2003y\u200bz\u2028w",
    "x" * 120, "x" * 99, "ab" * 400, "word" * 30 + " end", "é" * 130, "日" * 150, "0" * 50, "12345678901234567890", "1234 567 89 0", "!" * 40, "a.b,c;d!e?f",
    "'", "''s", "it's 'S 'LL 'ſ I'm'd", "don't", "x'y'z", "\u2019s", "(a)[b]{c}<d>", "a-b_c", "A" * 10 + "b" * 10, "CamelCaseWordsHTTPServer2Go",
    "\x00a\x00", "a\x01b\x7fc\x85d\u00adf\ufeffg", "\ufffd", "\u0378 \ue000 \U000e0001", "e\u0301 \u1e69 \u0073\u0323\u0307 \u0344", "\u1100\u1161\u11a8 \uac01",
    "İi Iı ẞß ſ Σς ΟΔΟΣ", "ǅ ǆ Ǆ", "x\u0300\u0301\u0302y", "👩‍👩‍👦🏿", "🇩🇪🇫🇷", "\U0001f9d1\U0001f3fe\u200d\U0001f680", "\U0001fae8 \U0001fada", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 𠜎",
    "你好，世界。hello世界", "ｆｕｌｌ ｗｉｄｔｈ！", "ﾊﾟﾋﾟ ㌀ ㍻ ﷺ", "½ ² ³ ㎢ Ⅷ ⑳", "...", "…", "a…b", "--- *** ===", "$100 €5 ¥1 ₹2 £3", "50% off @home #tag ^_^ `code` ~x | \\n",
    "<s>", "</s>", "<unk>", "a<s>b", " <s> ", "[CLS] a [SEP]", "[MASK]", "x [MASK] y", "<|endoftext|>", "a<|endoftext|>b", " <|endoftext|> ", "<extra>x <extra> y<extra>",
    "▁", "a▁b", "▁ ▁▁", "##ing", "ing ##ing", "<0x41>", "<0x0A>\n", "Ġ", "aĠb Ċ", "ก็ ไม่", "क्षि", "שָׁ", "ا\u064eل", "\u202eabc\u202c", "a\u0000", "tab\tnew\nline",
    "  leading and trailing  ", "multiple   spaces    here", "\n\n\n", "x\n \n  \ny", " \n", "\r", "a\u000bb\u000cc\u001cd", "q\u1680w\u180ee\u205fr",
]
texts = lines + edges + [corpus]


def write(name, data):
    if isinstance(data, str):
        data = data.encode("utf-8")
    buf = io.BytesIO()
    with gzip.GzipFile(fileobj=buf, mode="wb", mtime=0, compresslevel=9) as z:
        z.write(data)
    (here / (name + ".gz")).write_bytes(buf.getvalue())


golden = {}


def keep(name, tok, pair=False):
    tok.save(str(here / "tmp.json"), pretty=False)
    s = (here / "tmp.json").read_text(encoding="utf-8")
    (here / "tmp.json").unlink()
    tok = Tokenizer.from_str(s)
    write(name + ".json", s)
    rows = []
    for t in texts:
        bare, full = tok.encode(t, add_special_tokens=False), tok.encode(t)
        rows.append({"text": t, "ids": bare.ids, "full": full.ids, "decoded": tok.decode(bare.ids, skip_special_tokens=True), "kept": tok.decode(full.ids, skip_special_tokens=False)})
    golden[name] = {"rows": rows}
    if pair:
        p = tok.encode(lines[0], lines[3])
        golden[name]["pair"] = {"ids": p.ids, "types": p.type_ids}


# BERT: lower case, no accents, Chinese characters apart, WordPiece.
t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
t.decoder = decoders.WordPiece()
keep("bert", t, pair=True)
j = json.loads(t.to_str())
j["normalizer"].update(lowercase=False, strip_accents=None, handle_chinese_chars=False)
j["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
keep("bert_cased", Tokenizer.from_str(json.dumps(j)), pair=True)

# GPT-2: bytes and its expression.
t = Tokenizer(models.BPE())
t.pre_tokenizer, t.decoder, t.post_processor = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=800, special_tokens=["<|endoftext|>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
keep("gpt2", t)
gpt2 = json.loads(t.to_str())
golden["gpt2_train"] = {"vocab": gpt2["model"]["vocab"], "merges": gpt2["model"]["merges"]}
j = json.loads(t.to_str())
j["pre_tokenizer"]["add_prefix_space"] = True
j["added_tokens"] += [{"id": 800, "content": "<extra>", "single_word": False, "lstrip": True, "rstrip": True, "normalized": False, "special": True},
                      {"id": 801, "content": "word", "single_word": True, "lstrip": False, "rstrip": False, "normalized": True, "special": False},
                      {"id": 802, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True},
                      {"id": 803, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}]
j["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 803], "cls": ["<s>", 802], "trim_offsets": True, "add_prefix_space": True}
keep("roberta", Tokenizer.from_str(json.dumps(j)), pair=True)

# Llama 3: its expression, whole words first.
llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
t = Tokenizer(models.BPE(ignore_merges=True))
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(llama3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
t.decoder = decoders.ByteLevel()
t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=800, special_tokens=["<s>", "</s>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 0)])])
keep("llama3", t)
qwen = llama3.replace(r"\p{N}{1,3}", r"\p{N}")
j = json.loads(t.to_str())
j["normalizer"] = {"type": "NFC"}
j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = qwen
keep("qwen", Tokenizer.from_str(json.dumps(j)))
odd = r"[^\s\p{L}\p{N}]+|\p{L}{1,4}(?!x)|\p{N}+"
for how in ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]:
    j = json.loads(t.to_str())
    j["model"]["ignore_merges"] = False
    j["pre_tokenizer"]["pretokenizers"][0] = {"type": "Split", "pattern": {"Regex": odd}, "behavior": "".join(w.capitalize() for w in how.split("_")), "invert": how in ("removed", "contiguous")}
    keep("split_" + how, Tokenizer.from_str(json.dumps(j)))

# Llama 1 and 2: BPE of characters with bytes to fall back on, spaces as ▁.
t = Tokenizer(models.BPE(unk_token="<unk>"))
t.pre_tokenizer = pre_tokenizers.Metaspace()
special = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1000, special_tokens=special, limit_alphabet=150, show_progress=False))
j = json.loads(t.to_str())
j["added_tokens"] = j["added_tokens"][:3]
j["pre_tokenizer"] = None
j["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
j["model"].update(byte_fallback=True, fuse_unk=True)
j["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
j["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                       "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
keep("llama", Tokenizer.from_str(json.dumps(j)))
j["model"].update(byte_fallback=False)
j["normalizer"], j["pre_tokenizer"], j["decoder"] = None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
keep("metaspace_first", Tokenizer.from_str(json.dumps(j)))

# Words, and other normalisers.
t = Tokenizer(models.WordLevel(unk_token="[UNK]"))
t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()])
t.pre_tokenizer = pre_tokenizers.Whitespace()
t.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False))
keep("words", t)
t.normalizer = normalizers.NFKC()
t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)])
keep("punctuation", t)
t = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
t.normalizer, t.pre_tokenizer, t.decoder = normalizers.NFKD(), pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder()
t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False))
keep("suffix", t)

# SentencePiece: unigram and BPE models of its own, and the unigram one as T5 has it in tokenizer.json.
(here / "tmp.txt").write_text(corpus * 3, encoding="utf-8")
for name, kind, more in [("unigram", "unigram", {}), ("spbpe", "bpe", {"byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False, "normalization_rule_name": "identity"})]:
    m = io.BytesIO()
    spm.SentencePieceTrainer.train(input=str(here / "tmp.txt"), model_writer=m, model_type=kind, vocab_size=900, character_coverage=0.98 if kind == "bpe" else 0.995,
                                   pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=["<extra>"], num_threads=1, minloglevel=2, hard_vocab_limit=False, **more)
    p = spm.SentencePieceProcessor(model_proto=m.getvalue())
    write(name + ".model", m.getvalue())
    golden[name] = {"rows": [{"text": x, "ids": p.encode(x), "decoded": p.decode(p.encode(x))} for x in texts if "\x00" not in x]}
    if kind == "unigram":
        proto = pb.ModelProto.FromString(m.getvalue())
        t = Tokenizer(models.Unigram([(q.piece, q.score) for q in proto.pieces], 2, False))
        t.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
        t.decoder = decoders.Metaspace()
        t.add_special_tokens(["<pad>", "</s>", "<unk>"])
        t.add_tokens([AddedToken("<extra>", normalized=True)])
        t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
        keep("t5", t)
(here / "tmp.txt").unlink()

# tiktoken: the pieces of gpt2 above, by rank, with the expressions of its encodings.
table, n = {}, 0
for b in range(256):
    if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b <= 255:
        table[chr(b)] = b
    else:
        table[chr(256 + n)] = b
        n += 1
pieces = [bytes(table[c] for c in p) for p, _ in sorted(gpt2["model"]["vocab"].items(), key=lambda x: x[1]) if p != "<|endoftext|>"]
ranks = {p: i for i, p in enumerate(pieces)}
write("small.tiktoken", "".join("%s %d\n" % (base64.b64encode(p).decode(), i) for p, i in ranks.items()))
patterns = {
    "r50k": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "o200k": "|".join([
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]),
}
for name, pat in patterns.items():
    e = tiktoken.Encoding(name, pat_str=pat, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)})
    golden["tiktoken_" + name] = {"rows": [{"text": x, "ids": e.encode(x, allowed_special="all"), "decoded": e.decode(e.encode(x, disallowed_special=()))} for x in texts]}

write("golden.json", json.dumps(golden, ensure_ascii=False, separators=(",", ":")))
