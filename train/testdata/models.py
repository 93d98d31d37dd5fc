"""Makes train/testdata/models-torch.json or models-keras.json: small models with weights, inputs, outputs, all gradients, and the losses of ten steps of gradient descent with momentum.

Usage, from the root of the repository, with PyTorch or Keras 3 and TensorFlow installed:  python train/testdata/models.py torch|keras
Everything is computed in float64 from f32 numbers; arrays are base64 of little-endian float32. Names of weights are Joule's; weights of PyTorch's recurrent layers are kept as PyTorch
has them, for the test of their conversion.
"""
import base64, json, math, os, sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np

rng = np.random.default_rng(5)
RATE, MOMENTUM, STEPS = 0.05, 0.9, 10


def pack(x):
    x = np.asarray(x)
    return {"shape": list(x.shape), "data": base64.b64encode(x.astype("<f4").tobytes()).decode()}


def ints(shape, n):
    return rng.integers(0, n, shape)


def draw(shape, scale=0.6):
    return rng.uniform(-scale, scale, shape).astype("f4").astype("f8")


def torch_models():
    import torch
    from torch import nn
    torch.set_default_dtype(torch.float64)
    num = lambda t: t.detach().numpy()

    def linear(name, l):
        return [(name + "/kernel", l.weight, lambda w: w.T), (name + "/bias", l.bias, lambda b: b)]

    def norm(name, l):
        return [(name + "/gamma", l.weight, lambda w: w), (name + "/beta", l.bias, lambda b: b)]

    def attention(name, m, d, heads):
        out = []
        for i, part in enumerate(["query", "key", "value"]):
            # in_proj_weight is [3d d]: outputs first
            out.append((f"{name}/{part}/kernel", m.in_proj_weight, lambda w, i=i: w[i * d:(i + 1) * d].T.reshape(d, heads, d // heads)))
            out.append((f"{name}/{part}/bias", m.in_proj_bias, lambda b, i=i: b[i * d:(i + 1) * d].reshape(heads, d // heads)))
        out.append((name + "/attention_output/kernel", m.out_proj.weight, lambda w: w.T.reshape(heads, d // heads, d)))
        out.append((name + "/attention_output/bias", m.out_proj.bias, lambda b: b))
        return out

    def block(name, l, d, heads):
        out = norm(name + "/attention_norm", l.norm1) + attention(name + "/attention", l.self_attn, d, heads)
        last = l.norm2
        if isinstance(l, nn.TransformerDecoderLayer):
            out += norm(name + "/cross_attention_norm", l.norm2) + attention(name + "/cross_attention", l.multihead_attn, d, heads)
            last = l.norm3
        return out + norm(name + "/feed_forward_norm", last) + linear(name + "/feed_forward/hidden", l.linear1) + linear(name + "/feed_forward/output", l.linear2)

    def case(name, model, inputs, targets, names, recurrent=()):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.tensor(draw(p.shape)))
        # PyTorch's recurrent layers have two biases where a sum would do; one of each pair stays as it is.
        for _, cls, l, suffix in recurrent:
            if cls != "GRU":
                getattr(l, "bias_hh_" + suffix).requires_grad_(False)
        parts = lambda l, s: [getattr(l, k + s) for k in ("weight_ih_", "weight_hh_", "bias_ih_", "bias_hh_")]
        out = {"name": name, "inputs": [pack(x) for x in inputs], "targets": targets.tolist(), "weights": [{"name": n, "value": pack(f(num(p)))} for n, p, f in names],
               "recurrent": [{"layer": n, "class": c, "weights": [pack(num(p)) for p in parts(l, s)]} for n, c, l, s in recurrent]}
        xs, y = [torch.tensor(x) for x in inputs], torch.tensor(targets)
        opt = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE, momentum=MOMENTUM)
        losses = []
        for step in range(STEPS):
            opt.zero_grad()
            scores = model(*xs)
            loss = nn.functional.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))
            loss.backward()
            if step == 0:
                out["output"] = pack(num(torch.softmax(scores, -1)))
                out["gradients"] = [{"name": n, "value": pack(f(num(p.grad)))} for n, p, f in names]
                for r, (_, c, l, s) in zip(out["recurrent"], recurrent):
                    r["gradients"] = [pack(num(p.grad) if p.grad is not None else np.zeros(p.shape)) for p in parts(l, s)]
            losses.append(float(loss.detach()))
            opt.step()
        return {**out, "losses": losses}

    V, D, H = 13, 8, 2

    class GPT(nn.Module):
        def __init__(self, t=6):
            super().__init__()
            self.tokens, self.places = nn.Embedding(V, D), nn.Embedding(t, D)
            self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(D, H, 4 * D, 0.0, "gelu", batch_first=True, norm_first=True) for _ in range(2))
            self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V)

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            h = self.tokens(x) + self.places.weight
            for b in self.blocks:
                h = b(h, src_mask=mask, is_causal=True)
            return self.head(self.norm(h))

    same = lambda w: w
    g = GPT()
    gpt = case("gpt", g, [ints((3, 6), V)], ints((3, 6), V),
               [("tokens/embeddings", g.tokens.weight, same), ("places/embeddings", g.places.weight, same)] + block("block1", g.blocks[0], D, H) + block("block2", g.blocks[1], D, H)
               + norm("norm", g.norm) + linear("head", g.head))

    def sines(t, d):
        i = np.arange(d)
        angle = np.arange(t)[:, None] / 10000.0 ** (i // 2 * 2 / d)
        return torch.tensor(np.where(i % 2 == 0, np.sin(angle), np.cos(angle)))

    class EncoderDecoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = nn.Embedding(V, D), nn.Embedding(V, D)
            self.encoder = nn.TransformerEncoderLayer(D, H, 4 * D, 0.0, "relu", batch_first=True)
            self.decoder = nn.TransformerDecoderLayer(D, H, 4 * D, 0.0, "relu", batch_first=True)
            self.head = nn.Linear(D, V)

        def forward(self, source, length, target):
            pad = torch.arange(source.shape[1])[None] >= length[:, None]
            m = self.encoder(self.source(source) + sines(source.shape[1], D), src_key_padding_mask=pad)
            mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
            h = self.decoder(self.target(target) + sines(target.shape[1], D), m, tgt_mask=mask, memory_key_padding_mask=pad)
            return self.head(h)

    e = EncoderDecoder()
    encdec = case("encoder-decoder", e, [ints((3, 5), V), np.array([5, 3, 1]), ints((3, 4), V)], ints((3, 4), V),
                  [("source/embeddings", e.source.weight, same), ("target/embeddings", e.target.weight, same)] + block("encoder", e.encoder, D, H) + block("decoder", e.decoder, D, H)
                  + linear("head", e.head))

    class Stack(nn.Module):
        def __init__(self, cls):
            super().__init__()
            self.tokens = nn.Embedding(V, 5)
            self.one = cls(5, 4, batch_first=True)
            self.both = cls(4, 3, batch_first=True, bidirectional=True)
            self.head = nn.Linear(6, V)

        def forward(self, x):
            return self.head(self.both(self.one(self.tokens(x))[0])[0])

    stacks = []
    for cls, name, ours in [(nn.LSTM, "lstm", "LSTM"), (nn.GRU, "gru", "GRU"), (nn.RNN, "rnn", "SimpleRNN")]:
        s = Stack(cls)
        snake = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "simple_rnn"}[ours]
        stacks.append(case(name + " stack", s, [ints((3, 7), V)], ints((3, 7), V), [("tokens/embeddings", s.tokens.weight, same)] + linear("head", s.head),
                           [("one", ours, s.one, "l0"), ("both/forward_" + snake, ours, s.both, "l0"), ("both/backward_" + snake, ours, s.both, "l0_reverse")]))
    return {"torch": torch.__version__.split("+")[0], "cases": [gpt, encdec] + stacks}


def keras_models():
    import keras, tensorflow as tf
    keras.config.set_floatx("float64")
    L = keras.layers
    V, D, H = 13, 8, 2

    def case(name, model, inputs, targets, names):
        """names: Joule's, in the order of the model's weights."""
        weights = model.trainable_weights
        assert len(weights) == len(names), ([w.path for w in weights], names)
        first = [draw(w.shape) for w in weights]
        for w, v in zip(weights, first):
            w.assign(v)
        out = {"name": name, "inputs": [pack(x) for x in inputs], "targets": targets.tolist(), "weights": [{"name": n, "value": pack(v)} for n, v in zip(names, first)], "recurrent": []}
        opt = keras.optimizers.SGD(RATE, momentum=MOMENTUM)
        losses = []
        for step in range(STEPS):
            with tf.GradientTape() as tape:
                p = model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0]))
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(targets, p))
            grads = tape.gradient(loss, [w.value for w in weights])
            grads = [tf.convert_to_tensor(g) for g in grads]
            if step == 0:
                out["output"], out["gradients"] = pack(p), [{"name": n, "value": pack(g)} for n, g in zip(names, grads)]
            losses.append(float(loss))
            opt.apply(grads, weights)
        return {**out, "losses": losses}

    def norm(n):
        return [n + "/gamma", n + "/beta"]

    def dense(n):
        return [n + "/kernel", n + "/bias"]

    def attention(n):
        return sum((dense(f"{n}/{p}") for p in ("query", "key", "value", "attention_output")), [])

    def block(n, cross=False):
        names = norm(n + "/attention_norm") + attention(n + "/attention")
        if cross:
            names += norm(n + "/cross_attention_norm") + attention(n + "/cross_attention")
        return names + norm(n + "/feed_forward_norm") + dense(n + "/feed_forward/hidden") + dense(n + "/feed_forward/output")

    class Block(L.Layer):
        """A pre-norm block; the layers are made in the order of their use, so that their weights come in it."""
        def __init__(self, causal, cross=False):
            super().__init__()
            ln = lambda: L.LayerNormalization(epsilon=1e-5)
            self.causal, self.cross = causal, cross
            self.n1, self.a = ln(), L.MultiHeadAttention(H, D // H)
            if cross:
                self.n2, self.c = ln(), L.MultiHeadAttention(H, D // H)
            self.n3, self.up, self.down = ln(), L.Dense(4 * D, activation="gelu"), L.Dense(D)

        def call(self, x, memory=None, keep=None):
            h = self.n1(x)
            x = x + self.a(h, h, use_causal_mask=self.causal)
            if self.cross:
                x = x + self.c(self.n2(x), memory, attention_mask=keep)
            return x + self.down(self.up(self.n3(x)))

    class GPT(keras.Model):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = L.Embedding(V, D), L.Embedding(6, D)
            self.b1, self.b2, self.norm, self.head = Block(True), Block(True), L.LayerNormalization(epsilon=1e-5), L.Dense(V, activation="softmax")

        def call(self, x):
            h = self.tokens(x) + self.places(tf.range(6))[None]
            return self.head(self.norm(self.b2(self.b1(h))))

    def built(m, *xs):
        m(xs[0] if len(xs) == 1 else list(xs))
        return m

    x = ints((3, 6), V)
    gpt = case("gpt", built(GPT(), x), [x], ints((3, 6), V), ["tokens/embeddings", "places/embeddings"] + block("block1") + block("block2") + norm("norm") + dense("head"))

    class EncoderDecoder(keras.Model):
        def __init__(self):
            super().__init__()
            self.source, self.target, self.e, self.d, self.head = L.Embedding(V, D), L.Embedding(V, D), Block(False), Block(True, True), L.Dense(V, activation="softmax")

        def call(self, x):
            source, length, target = x
            keep = tf.range(source.shape[1])[None] < tf.cast(length, "int32")[:, None]
            h = self.source(source)
            n = self.e.n1(h)
            h = h + self.e.a(n, n, attention_mask=keep[:, None])
            h = h + self.e.down(self.e.up(self.e.n3(h)))
            return self.head(self.d(self.target(target), h, keep[:, None]))

    xs = [ints((3, 5), V), np.array([5, 3, 1]), ints((3, 4), V)]
    encdec = case("encoder-decoder pre-norm", built(EncoderDecoder(), *xs), xs, ints((3, 4), V),
                  ["source/embeddings", "target/embeddings"] + block("encoder") + block("decoder", True) + dense("head"))

    def rnn(n):
        return [n + "/kernel", n + "/recurrent_kernel", n + "/bias"]

    stacks = []
    for cls, config in [("LSTM", {}), ("GRU", {}), ("GRU", {"reset_after": False})]:
        cell = lambda units, **more: getattr(L, cls)(units, return_sequences=True, **config, **more)

        class Stack(keras.Model):
            """All layers see how many positions count. (Keras's Bidirectional gives zeros at the others, where its layers alone, and Joule's, keep the state.)"""
            def __init__(self):
                super().__init__()
                self.tokens, self.one, self.there, self.back = L.Embedding(V, 5), cell(4), cell(3), cell(3, go_backwards=True)
                self.head = L.Dense(V, activation="softmax")

            def call(self, x):
                x, length = x
                keep = tf.range(x.shape[1])[None] < tf.cast(length, "int32")[:, None]
                h = self.one(self.tokens(x), mask=keep)
                both = [self.there(h, mask=keep), keras.ops.flip(self.back(h, mask=keep), 1)]
                return self.head(keras.ops.concatenate(both, axis=2))

        xs = [ints((3, 6), V), np.array([6, 4, 1])]
        snake = cls.lower()
        stacks.append(case(f"{cls} stack, masked" + (", reset before" if config else ""), built(Stack(), *xs), xs, ints((3, 6), V),
                           ["tokens/embeddings"] + rnn("one") + rnn("both/forward_" + snake) + rnn("both/backward_" + snake) + dense("head")))
    return {"keras": keras.__version__, "cases": [gpt, encdec] + stacks}


which = sys.argv[1]
with open(f"train/testdata/models-{which}.json", "w") as f:
    json.dump({"torch": torch_models, "keras": keras_models}[which](), f, separators=(",", ":"))
    f.write("\n")
