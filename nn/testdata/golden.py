"""Makes the golden files of packages nn, optim and train with Keras 3, run in float64 on f32 inputs.

Usage, from the root of the repository, with Keras 3 and TensorFlow installed:  python nn/testdata/golden.py
Arrays are base64 of little-endian float32.
"""
import base64, json, os, sys

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf

keras.config.set_floatx("float64")
rng = np.random.default_rng(1)


def pack(x):
    x = np.asarray(x)
    return {"shape": list(x.shape), "data": base64.b64encode(x.astype("<f4").tobytes()).decode()}


def draw(shape, lo=-1.0, hi=1.0):
    return rng.uniform(lo, hi, shape).astype("f4").astype("f8")


def layer_case(cls, config, shapes, training=False, ints=0):
    layer = getattr(keras.layers, cls)(**config)
    xs = [rng.integers(0, ints, (2, *s)) if ints else draw((2, *s)) for s in shapes]
    many = len(xs) > 1
    arg = lambda v: v if many else v[0]
    layer.build([x.shape for x in xs] if many else xs[0].shape)
    before = [draw(w.shape, 0.2 if "variance" in w.name or "gamma" in w.name else -1.0) for w in layer.weights]
    layer.set_weights(before)
    vs = [tf.constant(x) for x in xs]
    with tf.GradientTape() as tape:
        if not ints:
            for v in vs:
                tape.watch(v)
        y = layer(arg(vs), training=training) if cls in ("BatchNormalization", "Dropout") else layer(arg(vs))
        w = draw(y.shape)
        loss = tf.reduce_sum(tf.cast(y, "float64") * w)
    wrt = ([] if ints else vs) + [v.value for v in layer.trainable_weights]
    grads = [tf.convert_to_tensor(g) for g in tape.gradient(loss, wrt)] if wrt else []
    return {
        "class": cls, "config": config, "training": training, "ints": bool(ints),
        "inputs": [pack(x) for x in xs], "weights": [pack(b) for b in before],
        "output": pack(y), "direction": pack(w), "gradients": [pack(g) for g in grads],
        "after": [pack(v) for v in layer.get_weights()] if training else None,
    }


class PositionEmbedding(keras.layers.Layer):
    """Learned positions; Keras itself has none."""
    def __init__(self, sequence_length):
        super().__init__()
        self.n = sequence_length

    def build(self, shape):
        self.w = self.add_weight(shape=(self.n, shape[-1]), name="embeddings")

    def call(self, x):
        return x + self.w[: x.shape[1]]


class SinePositionEncoding(keras.layers.Layer):
    def call(self, x):
        t, d = x.shape[1], x.shape[2]
        angle = np.arange(t)[:, None] / 10000.0 ** (np.arange(d) // 2 * 2 / d)[None]
        return x + np.where(np.arange(d) % 2 == 0, np.sin(angle), np.cos(angle))


class MultiHeadAttention(keras.layers.Layer):
    """Keras's, or with fewer heads of keys its GroupedQueryAttention, with flags for the call."""
    def __init__(self, causal=False, num_key_value_heads=None, **kw):
        super().__init__()
        self.causal = causal
        if num_key_value_heads:
            self.inner = keras.layers.GroupQueryAttention(kw["key_dim"], kw["num_heads"], num_key_value_heads)
        else:
            self.inner = keras.layers.MultiHeadAttention(**kw)

    def build(self, shape):
        q, kv = shape if isinstance(shape, list) else (shape, shape)
        self.inner.build(q, kv)

    def call(self, x):
        q, kv = x if isinstance(x, list) else (x, x)
        return self.inner(q, kv, use_causal_mask=self.causal)


class TransformerBlock(keras.layers.Layer):
    def __init__(self, num_heads, causal=False, intermediate_dim=0, activation="gelu", normalize_first=True, norm="layer", gated=False):
        super().__init__()
        self.a = dict(num_heads=num_heads, causal=causal, hidden=intermediate_dim, act=activation, first=normalize_first, gated=gated)
        self.norm = (lambda: keras.layers.LayerNormalization(epsilon=1e-5)) if norm == "layer" else (lambda: keras.layers.RMSNormalization(epsilon=1e-5))

    def build(self, shape):
        shape, memory = shape if isinstance(shape, list) else (shape, None)
        a, d = self.a, shape[-1]
        mha = lambda: keras.layers.MultiHeadAttention(a["num_heads"], d // a["num_heads"])
        self.parts = []
        def add(name, layer, *s):
            n = self.norm()
            setattr(self, name, layer), setattr(self, name + "_norm", n)
            for x in ([n, layer] if a["first"] else [layer, n]):
                x.build(shape) if x is n else x.build(*s)
        add("attention", mha(), shape, shape)
        if memory:
            add("cross", mha(), shape, memory)
        n = a["hidden"] or 4 * d
        hidden = keras.layers.Dense(n, activation=a["act"])
        gate, out = keras.layers.Dense(n), keras.layers.Dense(d)
        class FeedForward(keras.layers.Layer):
            def build(self, s):
                hidden.build(s)
                if a["gated"]:
                    gate.build(s)
                out.build((*s[:-1], n))
            def call(self, x):
                y = hidden(x)
                return out(y * gate(x) if a["gated"] else y)
        ff = FeedForward()
        ff.hidden, ff.out = hidden, out
        if a["gated"]:
            ff.gate = gate
        self.has_memory = memory is not None
        add("ff", ff, shape)
        # Weights in the order in which the block uses them.
        self.order = []
        names = ["attention"] + (["cross"] if memory else []) + ["ff"]
        for name in names:
            l, n = getattr(self, name), getattr(self, name + "_norm")
            own = hidden.weights + (gate.weights if a["gated"] else []) + out.weights if name == "ff" else l.weights
            self.order += n.weights + own if a["first"] else own + n.weights

    def call(self, x):
        x, memory = x if isinstance(x, list) else (x, None)
        def residual(x, name, f):
            n = getattr(self, name + "_norm")
            return x + f(n(x)) if self.a["first"] else n(x + f(x))
        x = residual(x, "attention", lambda v: self.attention(v, v, use_causal_mask=self.a["causal"]))
        if memory is not None:
            x = residual(x, "cross", lambda v: self.cross(v, memory))
        return residual(x, "ff", self.ff)


class Bidirectional(keras.layers.Layer):
    def __init__(self, layer, merge_mode="concat"):
        super().__init__()
        (cls, config), = layer.items()
        self.inner = keras.layers.Bidirectional(getattr(keras.layers, cls)(**config), merge_mode)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)


class Attention(keras.layers.Layer):
    """Keras's Attention, or AdditiveAttention, on queries, values and perhaps keys."""
    kind = "Attention"

    def __init__(self, **kw):
        super().__init__()
        self.inner = getattr(keras.layers, self.kind)(**kw)

    def build(self, shape):
        self.inner.build(shape)
        for w in self.inner.weights:  # Keras gives the scale of dot products no dimension
            assert w.shape == () or len(w.shape) == 1

    def call(self, x):
        return self.inner(x)


class AdditiveAttention(Attention):
    kind = "AdditiveAttention"


class AttentionDecoder(keras.layers.Layer):
    """A recurrent layer whose states look at a memory (arXiv:1508.04025)."""
    def __init__(self, layer, units=0, score="general"):
        super().__init__()
        (cls, config), = layer.items()
        self.cell = getattr(keras.layers, cls)(**config, return_sequences=True)
        self.h, self.additive = config["units"], score == "additive"
        self.query = keras.layers.Dense(self.h, use_bias=False) if self.additive else None
        self.key = keras.layers.Dense(self.h, use_bias=False)
        self.look = keras.layers.AdditiveAttention() if self.additive else keras.layers.Attention()
        self.out = keras.layers.Dense(units or self.h, use_bias=False, activation="tanh")

    def build(self, shape):
        x, memory = shape
        b, n, width = memory
        self.cell.build(x)
        if self.additive:
            self.query.build((*x[:2], self.h))
            self.key.build(memory)
            self.look.build([(*x[:2], self.h), memory, (b, n, self.h)])
            own = self.query.weights + self.key.weights + self.look.weights
        else:
            self.query = keras.layers.Dense(width, use_bias=False)
            self.query.build((*x[:2], self.h))
            own = self.query.weights
        self.out.build((*x[:2], width + self.h))
        self.order = self.cell.weights + own + self.out.weights

    def call(self, x):
        x, memory = x
        h = self.cell(x)
        q, k = self.query(h), self.key(memory) if self.additive else memory
        return self.out(keras.ops.concatenate([self.look([q, memory, k]), h], axis=2))


class PatchEmbedding(keras.layers.Layer):
    """A convolution whose stride is its size, and the class token before its results (arXiv:2010.11929)."""
    def __init__(self, patch_size, output_dim, class_token=False):
        super().__init__()
        self.conv = keras.layers.Conv2D(output_dim, patch_size, patch_size)
        self.d, self.token = output_dim, class_token

    def build(self, shape):
        self.conv.build(shape)
        if self.token:
            self.first = self.add_weight(shape=(1, self.d), name="class_token")
        self.order = self.conv.weights + ([self.first] if self.token else [])

    def call(self, x):
        y = self.conv(x)
        y = keras.ops.reshape(y, (y.shape[0], -1, self.d))
        if self.token:
            y = keras.ops.concatenate([keras.ops.broadcast_to(self.first[None], (y.shape[0], 1, self.d)), y], axis=1)
        return y


OWN = {c.__name__: c for c in (Attention, AdditiveAttention, AttentionDecoder, PatchEmbedding, Bidirectional, PositionEmbedding, SinePositionEncoding, MultiHeadAttention, TransformerBlock)}


def own_case(cls, config, shapes):
    layer = OWN[cls](**config)
    xs = [draw((2, *s)) for s in shapes]
    arg = lambda v: v if len(xs) > 1 else v[0]
    layer.build([x.shape for x in xs] if len(xs) > 1 else xs[0].shape)
    weights = getattr(layer, "order", None) or layer.weights
    before = [draw(w.shape) for w in weights]
    for w, b in zip(weights, before):
        w.assign(b)
    vs = [tf.constant(x) for x in xs]
    with tf.GradientTape() as tape:
        for v in vs:
            tape.watch(v)
        y = layer(arg(vs))
        w = draw(y.shape)
        loss = tf.reduce_sum(y * w)
    grads = [tf.convert_to_tensor(g) for g in tape.gradient(loss, vs + [v.value for v in weights])]
    return {
        "class": cls, "config": config, "training": False, "ints": False, "inputs": [pack(x) for x in xs], "weights": [pack(b) for b in before],
        "output": pack(y), "direction": pack(w), "gradients": [pack(g) for g in grads], "after": None,
    }


def transformer_layers():
    mha = {"num_heads": 2, "key_dim": 3}
    return [layer_case("RMSNormalization", {"epsilon": 0.001}, [(3, 4)])] + [own_case(*c) for c in [
        ("PositionEmbedding", {"sequence_length": 5}, [(3, 4)]),
        ("SinePositionEncoding", {}, [(5, 6)]),
        ("MultiHeadAttention", mha, [(4, 5)]),
        ("MultiHeadAttention", {**mha, "causal": True}, [(4, 5)]),
        ("MultiHeadAttention", {**mha, "use_bias": False}, [(4, 5), (3, 2)]),
        ("MultiHeadAttention", {"num_heads": 4, "key_dim": 2, "num_key_value_heads": 2}, [(4, 5)]),
        ("TransformerBlock", {"num_heads": 2}, [(3, 4)]),
        ("TransformerBlock", {"num_heads": 2, "causal": True, "norm": "rms", "gated": True, "activation": "silu", "intermediate_dim": 6}, [(3, 4)]),
        ("TransformerBlock", {"num_heads": 1, "normalize_first": False, "activation": "relu"}, [(3, 4)]),
        ("TransformerBlock", {"num_heads": 2, "causal": True}, [(3, 4), (5, 4)]),
    ]]


def seq2seq_layers():
    return [own_case(*c) for c in [
        ("Attention", {}, [(3, 4), (5, 4)]),
        ("Attention", {"use_scale": True}, [(3, 4), (5, 4), (5, 4)]),
        ("AdditiveAttention", {}, [(3, 4), (5, 4)]),
        ("AdditiveAttention", {"use_scale": False}, [(2, 3), (5, 2), (5, 3)]),
        ("AttentionDecoder", {"layer": {"LSTM": {"units": 3}}}, [(4, 2), (5, 6)]),
        ("AttentionDecoder", {"layer": {"GRU": {"units": 3}}, "units": 4, "score": "additive"}, [(4, 2), (5, 3)]),
        ("PatchEmbedding", {"patch_size": 2, "output_dim": 3}, [(4, 6, 2)]),
        ("PatchEmbedding", {"patch_size": 3, "output_dim": 2, "class_token": True}, [(3, 6, 1)]),
    ]]


def recurrent_layers():
    cases = [
        ("SimpleRNN", {"units": 3}, [(4, 2)]),
        ("SimpleRNN", {"units": 3, "activation": "relu", "return_sequences": True, "use_bias": False}, [(4, 2)]),
        ("SimpleRNN", {"units": 2, "go_backwards": True, "return_sequences": True}, [(3, 2)]),
        ("LSTM", {"units": 3}, [(4, 2)]),
        ("LSTM", {"units": 2, "return_sequences": True, "go_backwards": True}, [(3, 2)]),
        ("GRU", {"units": 3}, [(4, 2)]),
        ("GRU", {"units": 2, "return_sequences": True, "use_bias": False}, [(5, 1)]),
        ("GRU", {"units": 3, "reset_after": False, "return_sequences": True}, [(4, 2)]),
    ]
    return [layer_case(*c) for c in cases] + [own_case(*c) for c in [
        ("Bidirectional", {"layer": {"LSTM": {"units": 2, "return_sequences": True}}}, [(3, 2)]),
        ("Bidirectional", {"layer": {"GRU": {"units": 2}}, "merge_mode": "sum"}, [(3, 2)]),
        ("Bidirectional", {"layer": {"SimpleRNN": {"units": 2, "return_sequences": True}}, "merge_mode": "mul"}, [(3, 2)]),
    ]]


def layers():
    conv = {"filters": 3, "kernel_size": 3}
    cases = [
        ("Dense", {"units": 3, "activation": "relu"}, [(4,)]),
        ("Dense", {"units": 3, "use_bias": False}, [(2, 4)]),
        ("Conv1D", conv, [(6, 2)]),
        ("Conv1D", {"filters": 3, "kernel_size": 2, "padding": "causal", "dilation_rate": 2}, [(6, 2)]),
        ("Conv1D", {"filters": 3, "kernel_size": 2, "padding": "same", "strides": 2}, [(6, 2)]),
        ("Conv2D", conv, [(5, 4, 2)]),
        ("Conv2D", {**conv, "padding": "same", "strides": 2, "activation": "tanh"}, [(5, 4, 2)]),
        ("Conv2D", {"filters": 2, "kernel_size": [2, 3], "dilation_rate": [2, 1], "padding": "same"}, [(5, 4, 2)]),
        ("Conv2DTranspose", conv, [(3, 2, 2)]),
        ("Conv2DTranspose", {**conv, "strides": 2, "padding": "same"}, [(3, 2, 2)]),
        ("Conv2DTranspose", {"filters": 2, "kernel_size": 2, "strides": 3}, [(3, 2, 2)]),
        ("Conv2DTranspose", {"filters": 2, "kernel_size": 4, "strides": [2, 2], "padding": "same"}, [(3, 2, 2)]),
        ("DepthwiseConv2D", {"kernel_size": 3}, [(4, 4, 2)]),
        ("DepthwiseConv2D", {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"}, [(4, 3, 2)]),
        ("MaxPooling1D", {}, [(7, 2)]),
        ("AveragePooling1D", {"pool_size": 3, "strides": 2, "padding": "same"}, [(6, 2)]),
        ("MaxPooling2D", {}, [(5, 4, 2)]),
        ("MaxPooling2D", {"pool_size": 3, "strides": 2, "padding": "same"}, [(5, 4, 2)]),
        ("AveragePooling2D", {"pool_size": [2, 3], "strides": 1, "padding": "same"}, [(5, 4, 2)]),
        ("GlobalMaxPooling1D", {}, [(5, 2)]),
        ("GlobalAveragePooling1D", {"keepdims": True}, [(5, 2)]),
        ("GlobalMaxPooling2D", {"keepdims": True}, [(3, 4, 2)]),
        ("GlobalAveragePooling2D", {}, [(3, 4, 2)]),
        ("BatchNormalization", {}, [(3, 2, 2)]),
        ("BatchNormalization", {}, [(3, 2, 2)], True),
        ("BatchNormalization", {"momentum": 0.8, "epsilon": 0.01, "scale": False}, [(4,)], True),
        ("LayerNormalization", {}, [(3, 5)]),
        ("ReLU", {"max_value": 0.5, "negative_slope": 0.1, "threshold": 0.2}, [(6,)]),
        ("LeakyReLU", {}, [(6,)]),
        ("Softmax", {"axis": 1}, [(4, 2)]),
        ("Rescaling", {"scale": 0.25, "offset": -1.0}, [(5,)]),
        ("Flatten", {}, [(2, 3)]),
        ("Reshape", {"target_shape": [3, -1]}, [(2, 6)]),
        ("Permute", {"dims": [2, 3, 1]}, [(2, 3, 2)]),
        ("RepeatVector", {"n": 3}, [(4,)]),
        ("ZeroPadding2D", {"padding": [[1, 0], [2, 1]]}, [(2, 3, 2)]),
        ("UpSampling2D", {"size": [2, 3]}, [(2, 2, 2)]),
        ("Add", {}, [(3,), (3,), (3,)]),
        ("Multiply", {}, [(3,), (3,)]),
        ("Average", {}, [(3,), (3,), (3,)]),
        ("Maximum", {}, [(4,), (4,)]),
        ("Minimum", {}, [(4,), (4,)]),
        ("Concatenate", {"axis": 1}, [(2, 3), (1, 3)]),
        ("Dropout", {"rate": 0.5}, [(4,)]),
    ]
    out = [layer_case(*c) for c in cases]
    out.append(layer_case("Embedding", {"input_dim": 5, "output_dim": 3}, [(4,)], ints=5))
    for a in ("elu exponential gelu hard_sigmoid hard_silu leaky_relu linear log_softmax relu relu6 selu sigmoid silu softmax softplus softsign tanh").split():
        out.append(layer_case("Activation", {"activation": a}, [(4,)]))
    return out


def training():
    """Ten steps of each optimizer on a small network: the losses before each step, and the weights after the last."""
    K = keras.optimizers
    plain = lambda o: o
    def spare_biases(o):
        o.exclude_from_weight_decay(var_names=["bias"])
        return o
    cases = {
        "sgd": plain(K.SGD(0.1)),
        "sgd momentum": plain(K.SGD(0.05, momentum=0.9)),
        "sgd nesterov": plain(K.SGD(0.05, momentum=0.9, nesterov=True)),
        "adam": plain(K.Adam(0.01)),
        "adamw": spare_biases(K.AdamW(0.01, weight_decay=0.1)),
        "rmsprop": plain(K.RMSprop(0.005)),
        "rmsprop momentum centered": plain(K.RMSprop(0.005, momentum=0.5, centered=True)),
        "lion": plain(K.Lion(0.002)),
        "clipvalue": plain(K.SGD(0.1, clipvalue=0.02)),
        "clipnorm": plain(K.SGD(0.1, clipnorm=0.1)),
        "global_clipnorm": plain(K.SGD(0.1, global_clipnorm=0.1)),
    }
    xs, ys = draw((10, 6, 4), -2, 2), rng.integers(0, 3, (10, 6))
    shapes = [(4, 5), (5,), (5, 3), (3,)]
    first = [draw(s) for s in shapes]
    out = []
    for name, opt in cases.items():
        m = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5, activation="tanh"), keras.layers.Dense(3, activation="softmax")])
        m.set_weights(first)
        m.compile(opt, "sparse_categorical_crossentropy")
        losses = [float(m.train_on_batch(x, y)) for x, y in zip(xs, ys)]
        out.append({"name": name, "losses": losses, "weights": [pack(w) for w in m.get_weights()]})
    return {"x": pack(xs), "y": ys.tolist(), "first": [pack(w) for w in first], "cases": out}


def losses():
    """Values of losses and metrics on the same few numbers."""
    L, M = keras.losses, keras.metrics
    scores = draw((5, 4), -3, 3)
    p = np.asarray(keras.ops.softmax(scores))
    q = np.asarray(keras.ops.sigmoid(scores))
    labels = scores.argmax(1)
    labels[1], labels[3] = np.argsort(scores[1])[-2], np.argsort(scores[3])[0]
    ignored = int(labels[0])
    hot = np.eye(4)[labels]
    soft = np.asarray(keras.ops.softmax(draw((5, 4), -2, 2)))
    bits = (draw((5, 4)) > 0).astype("f8")
    aims = draw((5, 4), -3, 3)
    loose = draw((5, 4), 0.05, 0.95)  # predictions that do not add up to 1
    v = lambda loss, y, x: float(loss(y, x))
    # The binary metrics see all 20 numbers as one list.
    flat_q, flat_b = q.reshape(-1, 1), bits.reshape(-1, 1)
    def metric(m, y, x):
        m.update_state(y, x)
        return float(m.result())
    return {
        "scores": pack(scores), "labels": labels.tolist(), "ignored": ignored, "soft": pack(soft), "bits": pack(bits), "aims": pack(aims), "loose": pack(loose),
        "losses": {
            "sparse": v(L.SparseCategoricalCrossentropy(), labels, p),
            "sparse ignoring": v(L.SparseCategoricalCrossentropy(ignore_class=ignored), labels, p),
            "categorical": v(L.CategoricalCrossentropy(), soft, p),
            "categorical smoothed 0.2": v(L.CategoricalCrossentropy(label_smoothing=0.2), hot, p),
            "categorical of loose": v(L.CategoricalCrossentropy(), soft, loose),
            "categorical of loose smoothed 0.2": v(L.CategoricalCrossentropy(label_smoothing=0.2), hot, loose),
            "sparse of loose": v(L.SparseCategoricalCrossentropy(), labels, loose),
            "binary": v(L.BinaryCrossentropy(), bits, q),
            "binary smoothed 0.3": v(L.BinaryCrossentropy(label_smoothing=0.3), bits, q),
            "binary of loose smoothed 0.3": v(L.BinaryCrossentropy(label_smoothing=0.3), bits, loose),
            "mse": v(L.MeanSquaredError(), aims, scores),
            "mae": v(L.MeanAbsoluteError(), aims, scores),
            "huber 1.5": v(L.Huber(1.5), aims, scores),
            "kl": v(L.KLDivergence(), soft, p),
        },
        "metrics": {
            "accuracy": metric(M.SparseCategoricalAccuracy(), labels, p),
            "top 2": float(np.mean(tf.math.in_top_k(labels, p.astype("f4"), 2))),  # the metric of Keras needs f32 here
            "precision": metric(M.Precision(), flat_b, flat_q),
            "recall": metric(M.Recall(), flat_b, flat_q),
            "f1": float(np.asarray(metric(M.F1Score(threshold=0.5, average="micro"), flat_b, flat_q))),
            "mae": metric(M.MeanAbsoluteError(), aims, scores),
            "rmse": metric(M.RootMeanSquaredError(), aims, scores),
        },
    }


def write(path, value):
    with open(path, "w") as f:
        json.dump(value, f, separators=(",", ":"))
        f.write("\n")


write("nn/testdata/layers.json", {"keras": keras.__version__, "cases": layers()})
write("optim/testdata/training.json", {"keras": keras.__version__, **training()})
write("train/testdata/losses.json", {"keras": keras.__version__, **losses()})
write("nn/testdata/transformer.json", {"keras": keras.__version__, "cases": transformer_layers()})
write("nn/testdata/recurrent.json", {"keras": keras.__version__, "cases": recurrent_layers()})
write("nn/testdata/seq2seq.json", {"keras": keras.__version__, "cases": seq2seq_layers()})
