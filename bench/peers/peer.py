"""A peer: python peer.py NAME THREADS. One JSON request a line on stdin, one JSON answer a line on stdout.

Requests: {"work": "train_cnn" | "infer_cnn" | "int8_cnn" | "train_resnet18", "batch": N, "iters": K} and {"work": "sgemm", "m":, "n":, "k":, "ta":, "tb":, "iters":},
where ta and tb say that A and B are stored transposed, and {"work": "conv", "dir": "forward" | "dX" | "dW", "batch":, "size":, "stride":, "h":, "w":,
"in":, "out":, "groups":, "iters":} with size // 2 of padding on each side, {"work": "gpt", "layers":, "width":, "heads":, "time":, "batch":, "vocabulary":, "bf16": true | absent},
{"work": "encoder", "layers":, "width":, "heads":, "time":, "batch":} {"work": "attention", "time":, "heads":, "dim":, "causal":, "backward":} and
{"work": "recurrent", "cell": "lstm" | "gru", "in":, "units":, "time":, "batch":, "train":} and {"work": "decode", "bits": 8 | 4, "group":, "k":, "n":}.
"""
import json, os, sys, time

name, threads = sys.argv[1], int(sys.argv[2])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if name == "jax":
    os.environ["JAX_PLATFORMS"] = "cpu"
import numpy as np

rng = np.random.default_rng(0)
shared = lambda net: net  # ranks.py puts what shares training steps out in its place
steps = {}  # by request: a function that runs one iteration to its end


NOT_MINE = "not a work of this peer"  # bench/peers.go knows this sentence


class NotMine(Exception):
    pass


def peak():
    """The most memory that this program has had (VmHWM, see internal/rss), 0 where the system does not say."""
    try:
        with open("/proc/self/status") as f:
            return next((int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:")), 0)
    except OSError:
        return 0


def operands(r):
    """A as stored, B as stored, and both as the product sees them."""
    m, n, k = r["m"], r["n"], r["k"]
    a = rng.random((k, m) if r.get("ta") else (m, k), dtype=np.float32)
    b = rng.random((n, k) if r.get("tb") else (k, n), dtype=np.float32)
    return a, b


def batch(n):
    return rng.random((n, 28, 28, 1), dtype=np.float32), (np.arange(n) % 10).astype(np.int32)


def torch_blocks(r, causal, pre):
    """Transformer blocks as modules: each the way PyTorch's documentation advises, attention by scaled_dot_product_attention, q, k and v from one product."""
    import torch
    from torch import nn
    F, width, heads = nn.functional, r["width"], r["heads"]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)

        def attend(self, x):
            b, t, _ = x.shape
            q, k, v = self.qkv(x).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.out(y.transpose(1, 2).reshape(b, t, width))

        def feed(self, x):
            return self.down(F.gelu(self.up(x)))

        def forward(self, x):
            if pre:
                x = x + self.attend(self.n1(x))
                return x + self.feed(self.n2(x))
            x = self.n1(x + self.attend(x))
            return self.n2(x + self.feed(x))
    return nn.Sequential(*[Block() for _ in range(r["layers"])])


def torch_resnet(r, fmt, compiled):
    """ResNet-18 for pictures of 32x32, as in bench/resnet.go."""
    import torch
    from torch import nn

    def conv(i, o, size, stride):
        return nn.Sequential(nn.Conv2d(i, o, size, stride, size // 2, bias=False), nn.BatchNorm2d(o))

    class Block(nn.Module):
        def __init__(self, i, o, stride):
            super().__init__()
            self.a, self.b = conv(i, o, 3, stride), conv(o, o, 3, 1)
            self.around = conv(i, o, 1, stride) if stride > 1 or i != o else nn.Identity()

        def forward(self, x):
            return torch.relu(self.b(torch.relu(self.a(x))) + self.around(x))
    layers, i = [conv(3, 64, 3, 1), nn.ReLU()], 64
    for stage, o in enumerate((64, 128, 256, 512)):
        layers += [Block(i, o, 2 if stage else 1), Block(o, o, 1)]
        i = o
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).to(memory_format=fmt)
    if compiled:
        net = torch.compile(net)
    x = torch.rand(r["batch"], 3, 32, 32).to(memory_format=fmt)
    y = torch.arange(r["batch"]) % 10
    opt = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)

    def step():
        opt.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    return step


def torch_recurrent(r):
    """nn.LSTM or nn.GRU (which call oneDNN or PyTorch's own kernels) and a classifier of the last state."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = (nn.LSTM if r["cell"] == "lstm" else nn.GRU)(r["in"], r["units"], batch_first=True)
            self.head = nn.Linear(r["units"], 10)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])
    return Net(), torch.rand(r["batch"], r["time"], r["in"])


def torch_recurrent_step(r):
    import torch
    net, x = torch_recurrent(r)
    if not r["train"]:
        net.eval()

        def infer():
            with torch.inference_mode():
                torch.softmax(net(x), 1)
        return infer
    y = torch.arange(r["batch"]) % 10
    opt = torch.optim.Adam(net.parameters(), lr=0.0, eps=1e-7)

    def step():
        opt.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), y).backward()
        opt.step()
    return step


def torch_sequence(r, compiled):
    import torch
    from torch import nn
    F = nn.functional
    if r["work"] == "attention":
        if compiled:
            raise NotMine
        q, k, v = (torch.rand(1, r["heads"], r["time"], r["dim"], requires_grad=r["backward"]) for _ in range(3))
        dy = torch.rand_like(q)
        f = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=r["causal"])
        if not r["backward"]:
            def forward():
                with torch.inference_mode():
                    f()
            return forward

        def both():
            q.grad = k.grad = v.grad = None
            f().backward(dy)
        return both
    if r["work"] == "encoder":
        net = torch_blocks(r, False, False).eval()
        x = torch.rand(r["batch"], r["time"], r["width"])
        if compiled:
            net = torch.compile(net)

        def infer():
            with torch.inference_mode():
                net(x)
        return infer

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(r["vocabulary"], r["width"]), nn.Embedding(r["time"], r["width"])
            self.blocks, self.norm = torch_blocks(r, True, True), nn.LayerNorm(r["width"])
            self.head = nn.Linear(r["width"], r["vocabulary"])

        def forward(self, x, y):
            h = self.tokens(x) + self.positions.weight
            return F.cross_entropy(self.head(self.norm(self.blocks(h))).flatten(0, 1), y.flatten())
    net = shared(GPT())
    if compiled:
        net = torch.compile(net)
    x = torch.arange(r["batch"] * r["time"]).mul(7).remainder(r["vocabulary"]).view(r["batch"], r["time"])
    opt = torch.optim.Adam(net.parameters(), lr=0.0, eps=1e-7)

    def step():
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(r.get("bf16"))):
            loss = net(x, x)
        loss.backward()
        opt.step()
    return step


def torch_peer(last, compiled=False):
    import torch
    torch.set_num_threads(threads)
    fmt = torch.channels_last if last else torch.contiguous_format
    nn = torch.nn

    def make(r):
        if r["work"] == "sgemm":
            if last:  # the layout of images plays no part: the same as torch-eager
                raise NotMine
            a, b = map(torch.from_numpy, operands(r))
            a, b = a.T if r.get("ta") else a, b.T if r.get("tb") else b
            c = torch.empty(r["m"], r["n"])
            return lambda: torch.mm(a, b, out=c)
        if r["work"] == "train_resnet18":
            return torch_resnet(r, fmt, compiled)
        if r["work"] == "recurrent":
            if last or compiled:  # torch.compile leaves recurrent modules to eager mode
                raise NotMine
            return torch_recurrent_step(r)
        if r["work"] in ("gpt", "encoder", "attention"):
            if last and not compiled:
                raise NotMine
            return torch_sequence(r, compiled)
        if r["work"] == "conv":
            if compiled:  # it would call the same convolution
                raise NotMine
            s, st, g = r["size"], r["stride"], r["groups"]
            x = torch.rand(r["batch"], r["in"], r["h"], r["w"]).to(memory_format=fmt)
            w = torch.rand(r["out"], r["in"] // g, s, s).to(memory_format=fmt)
            conv = lambda: torch.nn.functional.conv2d(x, w, None, st, s // 2, 1, g)

            def forward():
                with torch.inference_mode():
                    conv()
            if r["dir"] == "forward":
                return forward
            dy = torch.rand_like(conv()).to(memory_format=fmt)
            mask = [r["dir"] == "dX", r["dir"] == "dW", False]
            return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, [st, st], [s // 2, s // 2], [1, 1], False, [0, 0], g, mask)
        if r["work"] not in ("train_cnn", "infer_cnn"):
            raise NotMine
        net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)).to(memory_format=fmt)
        x, y = batch(r["batch"])
        x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(memory_format=fmt)
        y = torch.from_numpy(y.astype(np.int64))
        net = shared(net)
        if compiled:
            net = torch.compile(net)
        if r["work"] == "infer_cnn":
            net.eval()

            def infer():
                with torch.inference_mode():
                    torch.softmax(net(x), 1)
            return infer
        opt = torch.optim.Adam(net.parameters(), lr=0.0, eps=1e-7)
        loss = nn.CrossEntropyLoss()

        def step():
            opt.zero_grad(set_to_none=True)
            loss(net(x), y).backward()
            opt.step()
        return step
    return torch.__version__, make


def jax_sequence(r):
    import jax, jax.numpy as jnp, optax
    d, heads, training = r["width"], r["heads"], r["work"] == "gpt"
    w = lambda *s: jnp.asarray(rng.normal(0, 0.02, s).astype(np.float32))
    zeros, ones = jnp.zeros, jnp.ones
    block = lambda: [w(d, 3 * d), zeros(3 * d), w(d, d), zeros(d), w(d, 4 * d), zeros(4 * d), w(4 * d, d), zeros(d), ones(d), zeros(d), ones(d), zeros(d)]
    blocks = [block() for _ in range(r["layers"])]

    def norm(x, g, b):
        m = x.mean(-1, keepdims=True)
        return (x - m) * jax.lax.rsqrt(((x - m) ** 2).mean(-1, keepdims=True) + 1e-5) * g + b

    def apply(p, x):
        qkv, bq, o, bo, up, bu, down, bd, g1, b1, g2, b2 = p
        n, t, _ = x.shape

        def attend(x):
            q, k, v = jnp.moveaxis((x @ qkv + bq).reshape(n, t, 3, heads, d // heads), 2, 0)
            return jax.nn.dot_product_attention(q, k, v, is_causal=training).reshape(n, t, d) @ o + bo
        feed = lambda x: jax.nn.gelu(x @ up + bu, approximate=False) @ down + bd
        if training:
            x = x + attend(norm(x, g1, b1))
            return x + feed(norm(x, g2, b2))
        x = norm(x + attend(x), g1, b1)
        return norm(x + feed(x), g2, b2)
    if not training:
        x = w(r["batch"], r["time"], d)

        def f(ps, x):
            for p in ps:
                x = apply(p, x)
            return x
        f = jax.jit(f)
        return lambda: f(blocks, x).block_until_ready()
    v = r["vocabulary"]
    params = [w(v, d), w(r["time"], d), blocks, ones(d), zeros(d), w(d, v), zeros(v)]
    x = jnp.asarray(np.arange(r["batch"] * r["time"]) * 7 % v).reshape(r["batch"], r["time"])
    opt = optax.adam(0.0, eps=1e-7)
    state = [params, opt.init(params)]

    def loss(p):
        table, pos, bs, g, b, head, bh = p
        h = table[x] + pos
        for q in bs:
            h = apply(q, h)
        return optax.softmax_cross_entropy_with_integer_labels(norm(h, g, b) @ head + bh, x).mean()

    def step(p, s):
        u, s = opt.update(jax.grad(loss)(p), s)
        return optax.apply_updates(p, u), s
    f = jax.jit(step, donate_argnums=(0, 1))

    def run():
        state[:] = f(*state)
        jax.block_until_ready(state[0])
    return run


def jax_recurrent(r):
    import jax, jax.numpy as jnp, optax
    units, n = r["units"], r["batch"]
    gates = 4 if r["cell"] == "lstm" else 3
    w = lambda *s: jnp.asarray(rng.normal(0, 0.05, s).astype(np.float32))
    params = [w(r["in"], gates * units), w(units, gates * units), jnp.zeros(gates * units), jnp.zeros(gates * units), w(units, 10), jnp.zeros(10)]
    x, y = jnp.asarray(rng.random((n, r["time"], r["in"]), dtype=np.float32)), jnp.arange(n) % 10

    def net(p, x):
        k, u, b, br, head, bh = p
        xs = jnp.swapaxes(x @ k + b, 0, 1)  # the products of all steps at once

        def lstm(s, x):
            h, c = s
            i, f, g, o = jnp.split(x + h @ u, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        def gru(s, x):
            h, _ = s
            (xz, xr, xn), (z, q, v) = jnp.split(x, 3, -1), jnp.split(h @ u + br, 3, -1)
            z = jax.nn.sigmoid(xz + z)
            return (z * h + (1 - z) * jnp.tanh(xn + jax.nn.sigmoid(xr + q) * v), h), None
        zero = jnp.zeros((n, units))
        return jax.lax.scan(lstm if gates == 4 else gru, (zero, zero), xs)[0][0] @ head + bh
    if not r["train"]:
        f = jax.jit(lambda p, x: jax.nn.softmax(net(p, x)))
        return lambda: f(params, x).block_until_ready()
    opt = optax.adam(0.0, eps=1e-7)
    state = [params, opt.init(params)]

    def step(p, s):
        g = jax.grad(lambda p: optax.softmax_cross_entropy_with_integer_labels(net(p, x), y).mean())(p)
        v, s = opt.update(g, s)
        return optax.apply_updates(p, v), s
    f = jax.jit(step, donate_argnums=(0, 1))

    def run():
        state[:] = f(*state)
        jax.block_until_ready(state[0])
    return run


def jax_peer():
    import jax, jax.numpy as jnp, optax

    def make(r):
        if r["work"] == "sgemm":
            a, b = map(jnp.asarray, operands(r))
            f = jax.jit(lambda a, b: jnp.matmul(a.T if r.get("ta") else a, b.T if r.get("tb") else b))
            return lambda: f(a, b).block_until_ready()
        if r["work"] in ("gpt", "encoder") and not r.get("bf16"):
            return jax_sequence(r)
        if r["work"] == "recurrent":
            return jax_recurrent(r)
        if r["work"] not in ("train_cnn", "infer_cnn"):
            raise NotMine
        w = lambda *s: jnp.asarray(rng.normal(0, 0.05, s).astype(np.float32))
        p = [w(3, 3, 1, 32), jnp.zeros(32), w(3, 3, 32, 64), jnp.zeros(64), w(1600, 128), jnp.zeros(128), w(128, 10), jnp.zeros(10)]
        x, y = map(jnp.asarray, batch(r["batch"]))
        conv = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        pool = lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

        def net(p, x):
            h = pool(jax.nn.relu(conv(x, p[0]) + p[1]))
            h = pool(jax.nn.relu(conv(h, p[2]) + p[3])).reshape(x.shape[0], -1)
            return jax.nn.relu(h @ p[4] + p[5]) @ p[6] + p[7]
        if r["work"] == "infer_cnn":
            f = jax.jit(lambda p, x: jax.nn.softmax(net(p, x)))
            return lambda: f(p, x).block_until_ready()
        opt = optax.adam(0.0, eps=1e-7)
        state = [p, opt.init(p)]

        def step(p, s):
            g = jax.grad(lambda p: optax.softmax_cross_entropy_with_integer_labels(net(p, x), y).mean())(p)
            u, s = opt.update(g, s)
            return optax.apply_updates(p, u), s
        f = jax.jit(step, donate_argnums=(0, 1))

        def run():
            state[:] = f(*state)
            jax.block_until_ready(state[0])
        return run
    return jax.__version__, make


def keras_peer():
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    L = keras.layers

    def make(r):
        if r["work"] == "train_resnet18":
            conv = lambda x, o, size, stride: L.BatchNormalization()(L.Conv2D(o, size, stride, "same", use_bias=False)(x))
            image = keras.Input((32, 32, 3))
            x = L.ReLU()(conv(image, 64, 3, 1))
            for stage, o in enumerate((64, 128, 256, 512)):
                for block in range(2):
                    stride = 2 if stage and not block else 1
                    around = conv(x, o, 1, 2) if stride > 1 else x
                    x = L.ReLU()(L.Add()([conv(L.ReLU()(conv(x, o, 3, stride)), o, 3, 1), around]))
            net = keras.Model(image, L.Dense(10, activation="softmax")(L.GlobalAveragePooling2D()(x)))
            net.compile(keras.optimizers.SGD(0.0, momentum=0.9), "sparse_categorical_crossentropy")
            x, y = tf.constant(rng.random((r["batch"], 32, 32, 3), dtype=np.float32)), tf.constant(np.arange(r["batch"]) % 10)
            return lambda: net.train_on_batch(x, y)
        if r["work"] == "recurrent":
            cell = (L.LSTM if r["cell"] == "lstm" else L.GRU)(r["units"])
            net = keras.Sequential([keras.Input((r["time"], r["in"])), cell, L.Dense(10, activation="softmax")])
            net.compile(keras.optimizers.Adam(0.0), "sparse_categorical_crossentropy")
            x, y = tf.constant(rng.random((r["batch"], r["time"], r["in"]), dtype=np.float32)), tf.constant(np.arange(r["batch"]) % 10)
            if not r["train"]:
                f = tf.function(lambda x: net(x, training=False))
                return lambda: f(x).numpy()
            return lambda: net.train_on_batch(x, y)
        if r["work"] not in ("train_cnn", "infer_cnn"):
            raise NotMine
        net = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D(2), L.Conv2D(64, 3, activation="relu"),
                                L.MaxPooling2D(2), L.Flatten(), L.Dense(128, activation="relu"), L.Dense(10, activation="softmax")])
        net.compile(keras.optimizers.Adam(0.0), "sparse_categorical_crossentropy")
        x, y = batch(r["batch"])
        x, y = tf.constant(x), tf.constant(y)
        if r["work"] == "infer_cnn":
            f = tf.function(lambda x: net(x, training=False))
            return lambda: f(x).numpy()
        return lambda: net.train_on_batch(x, y)
    return keras.__version__ + " on TensorFlow " + tf.__version__, make


def openblas_peer():
    import threadpoolctl
    blas = [i for i in threadpoolctl.threadpool_info() if i["internal_api"] == "openblas"]
    if not blas:
        raise RuntimeError("numpy here does not use OpenBLAS")
    limit = threadpoolctl.threadpool_limits(threads)  # in force as long as it lives

    def make(r, limit=limit):
        if r["work"] != "sgemm":
            raise NotMine
        a, b = operands(r)
        a, b = a.T if r.get("ta") else a, b.T if r.get("tb") else b
        c = np.empty((r["m"], r["n"]), np.float32)
        return lambda: np.matmul(a, b, out=c)
    return "%s (%s kernels)" % (blas[0]["version"], blas[0]["architecture"]), make


def torchao_decode(r):
    """One row times a matrix whose weights alone are of 8 or 4 bits: TorchAO's weight-only forms for CPUs, on floats or (int4 has no other kernel there) bfloat16."""
    import torch
    from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig
    from torchao.quantization import Int8WeightOnlyConfig, quantize_
    if r["bits"] == 8 and r["group"]:
        raise NotMine  # its scales are one for each output
    kind = torch.float32 if r["bits"] == 8 else torch.bfloat16
    m = torch.nn.Sequential(torch.nn.Linear(r["k"], r["n"], bias=False, dtype=kind)).eval()
    quantize_(m, Int8WeightOnlyConfig() if r["bits"] == 8 else PrototypeInt4WeightOnlyConfig(group_size=r["group"]))
    f = torch.compile(m)
    x = torch.rand(1, r["k"], dtype=kind)

    def decode():
        with torch.inference_mode():
            f(x)
    return decode


def torch_int8_peer():
    """The main network as bytes, and with bytes only in its dense layers, in the ways that PyTorch has for x86; ranges from the images that it then sees."""
    import copy, torch
    torch.set_num_threads(threads)
    nn = torch.nn

    def make(r):
        if r["work"] == "decode" and name == "torchao-weights":
            return torchao_decode(r)
        if r["work"] != "int8_cnn" or name == "torchao-weights":
            raise NotMine
        net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10), nn.Softmax(1)).eval()
        x = torch.from_numpy(batch(r["batch"])[0].transpose(0, 3, 1, 2).copy()).to(memory_format=torch.channels_last)
        seen = torch.from_numpy(batch(128)[0].transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            if name == "torch-int8":  # FX graph mode, static: torch.ao.quantization, engine x86
                import torch.ao.quantization as q
                from torch.ao.quantization import quantize_fx
                torch.backends.quantized.engine = "x86"
                m = quantize_fx.prepare_fx(net, q.get_default_qconfig_mapping("x86"), (x,))
                m(seen)
                f = quantize_fx.convert_fx(m)
            elif name == "torchao-pt2e":  # PT2E, static: torchao with torch.compile, weights frozen
                import torch._inductor.config as inductor
                import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86
                from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
                inductor.freezing = True
                q = x86.X86InductorQuantizer()
                q.set_global(x86.get_default_x86_inductor_quantization_config())
                m = prepare_pt2e(torch.export.export(net, (x,)).module(), q)
                m(x)
                f = torch.compile(convert_pt2e(m))
            elif name == "neural-compressor":  # its static quantization for PyTorch, which goes through PT2E too, with torch.compile and weights frozen as it advises
                import torch._inductor.config as inductor
                from neural_compressor.torch.export import export
                from neural_compressor.torch.quantization import convert, get_default_static_config, prepare
                inductor.freezing = True
                m = prepare(export(net, (x,)), quant_config=get_default_static_config())
                m(x)
                f = torch.compile(convert(m))
            else:  # torchao-dynamic: activations of dense layers quantized as they come
                from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
                m = copy.deepcopy(net)
                quantize_(m, Int8DynamicActivationInt8WeightConfig())
                f = torch.compile(m)

        def infer():
            with torch.inference_mode():
                f(x)
        return infer
    version = torch.__version__
    if name == "neural-compressor":
        import logging
        logging.disable(logging.WARNING)
        import neural_compressor.torch.quantization  # which takes seconds: it looks at the processor by a clock
        version = neural_compressor.__version__ + " on PyTorch " + version
    elif name != "torch-int8":
        import torchao
        version = torchao.__version__ + " on PyTorch " + version
    return version, make


def onnx_cnn(n):
    """The main network's prediction for n images as an ONNX model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    shapes = {"k1": (32, 1, 3, 3), "b1": (32,), "k2": (64, 32, 3, 3), "b2": (64,), "w3": (1600, 128), "b3": (128,), "w4": (128, 10), "b4": (10,)}
    init = [numpy_helper.from_array(rng.normal(0, 0.05, s).astype(np.float32), k) for k, s in shapes.items()]
    node = helper.make_node
    pool = dict(kernel_shape=[2, 2], strides=[2, 2])
    nodes = [node("Conv", ["x", "k1", "b1"], ["a"]), node("Relu", ["a"], ["b"]), node("MaxPool", ["b"], ["c"], **pool),
             node("Conv", ["c", "k2", "b2"], ["d"]), node("Relu", ["d"], ["e"]), node("MaxPool", ["e"], ["f"], **pool),
             node("Flatten", ["f"], ["g"]), node("Gemm", ["g", "w3", "b3"], ["h"]), node("Relu", ["h"], ["i"]),
             node("Gemm", ["i", "w4", "b4"], ["j"]), node("Softmax", ["j"], ["y"], axis=1)]
    graph = helper.make_graph(nodes, "cnn", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [n, 1, 28, 28])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [n, 10])], init)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def onnx_int8(n, form):
    """The same, statically quantized by ONNX Runtime's own tool: activations u8, weights i8 with a scale for each filter; form is QDQ or QOperator."""
    import logging, tempfile, onnx
    from onnxruntime import quantization as q
    logging.disable(logging.WARNING)

    class Images(q.CalibrationDataReader):
        left = 4

        def get_next(self):
            self.left -= 1
            return {"x": np.ascontiguousarray(batch(n)[0].transpose(0, 3, 1, 2))} if self.left >= 0 else None
    with tempfile.TemporaryDirectory() as d:
        f32, prepared, int8 = (os.path.join(d, f) for f in ("f32.onnx", "prepared.onnx", "int8.onnx"))
        onnx.save(onnx_cnn(n), f32)
        q.shape_inference.quant_pre_process(f32, prepared)
        q.quantize_static(prepared, int8, Images(), quant_format=getattr(q.QuantFormat, form), per_channel=True,
                          activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
        with open(int8, "rb") as f:
            return f.read()


def onnx_peer():
    import onnxruntime as ort

    def session(model):
        opts = ort.SessionOptions()
        opts.intra_op_num_threads, opts.inter_op_num_threads = threads, 1
        return ort.InferenceSession(model, opts, providers=["CPUExecutionProvider"])

    def cnn(model, n):
        s, x = session(model), {"x": np.ascontiguousarray(batch(n)[0].transpose(0, 3, 1, 2))}
        return lambda: s.run(None, x)

    def make(r):
        if name != "onnxruntime":
            if r["work"] != "int8_cnn":
                raise NotMine
            return cnn(onnx_int8(r["batch"], {"onnxruntime-qdq": "QDQ", "onnxruntime-qoperator": "QOperator"}[name]), r["batch"])
        if r["work"] == "recurrent" and not r["train"]:
            import io, torch
            net, x = torch_recurrent(r)
            out = io.BytesIO()
            torch.onnx.export(net.eval(), (x,), out, input_names=["x"], opset_version=17, dynamo=False)
            s = session(out.getvalue())
            return lambda: s.run(None, {"x": x.numpy()})
        if r["work"] == "encoder":
            import io, torch
            x = torch.rand(r["batch"], r["time"], r["width"])
            out = io.BytesIO()
            torch.onnx.export(torch_blocks(r, False, False).eval(), (x,), out, input_names=["x"], opset_version=17, dynamo=False)
            s = session(out.getvalue())
            return lambda: s.run(None, {"x": x.numpy()})
        if r["work"] != "infer_cnn":
            raise NotMine
        return cnn(onnx_cnn(r["batch"]).SerializeToString(), r["batch"])
    return ort.__version__, make


def answer(line):
    """One request, served."""
    r = json.loads(line)
    iters = r.pop("iters")
    key = json.dumps(r, sort_keys=True)
    try:
        if key not in steps:
            steps.clear()  # works come one after another: keep the memory of one
            steps[key] = make(r)
            for _ in range(5):
                steps[key]()
        ms = []
        for _ in range(iters):
            t = time.perf_counter()
            steps[key]()
            ms.append((time.perf_counter() - t) * 1e3)
        return {"ms": ms, "rss_bytes": peak()}
    except NotMine:
        return {"error": NOT_MINE}
    except Exception as e:
        return {"error": repr(e)}


if __name__ == "__main__":
    try:
        version, make = {"torch-eager": lambda: torch_peer(False), "torch-channels-last": lambda: torch_peer(True), "jax": jax_peer, "keras": keras_peer,
                         "torch-compile": lambda: torch_peer(True, True), "openblas": openblas_peer, "onnxruntime": onnx_peer, "onnxruntime-qdq": onnx_peer,
                         "onnxruntime-qoperator": onnx_peer, "torch-int8": torch_int8_peer, "torchao-pt2e": torch_int8_peer, "torchao-dynamic": torch_int8_peer, "torchao-weights": torch_int8_peer, "neural-compressor": torch_int8_peer}[name]()
        print(json.dumps({"ready": True, "name": name, "version": version, "threads": threads}), flush=True)
    except Exception as e:
        print(json.dumps({"error": repr(e)}), flush=True)
        sys.exit(1)
    for line in sys.stdin:
        print(json.dumps(answer(line)), flush=True)
