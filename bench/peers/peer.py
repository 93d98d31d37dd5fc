"""A peer: python peer.py NAME THREADS. One JSON request a line on stdin, one JSON answer a line on stdout.

Requests: {"work": "train_cnn" | "infer_cnn", "batch": N, "iters": K} and {"work": "sgemm", "m":, "n":, "k":, "iters":}.
"""
import json, os, resource, sys, time

name, threads = sys.argv[1], int(sys.argv[2])
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if name == "jax":
    os.environ["JAX_PLATFORMS"] = "cpu"
import numpy as np

rng = np.random.default_rng(0)
steps = {}  # by request: a function that runs one iteration to its end


def batch(n):
    return rng.random((n, 28, 28, 1), dtype=np.float32), (np.arange(n) % 10).astype(np.int32)


def torch_peer(last):
    import torch
    torch.set_num_threads(threads)
    fmt = torch.channels_last if last else torch.contiguous_format
    nn = torch.nn

    def make(r):
        if r["work"] == "sgemm":
            a, b = torch.rand(r["m"], r["k"]), torch.rand(r["k"], r["n"])
            c = torch.empty(r["m"], r["n"])
            return lambda: torch.mm(a, b, out=c)
        net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)).to(memory_format=fmt)
        x, y = batch(r["batch"])
        x = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).to(memory_format=fmt)
        y = torch.from_numpy(y.astype(np.int64))
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


def jax_peer():
    import jax, jax.numpy as jnp, optax

    def make(r):
        if r["work"] == "sgemm":
            a, b = jnp.asarray(rng.random((r["m"], r["k"]), dtype=np.float32)), jnp.asarray(rng.random((r["k"], r["n"]), dtype=np.float32))
            f = jax.jit(jnp.matmul)
            return lambda: f(a, b).block_until_ready()
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
        if r["work"] == "sgemm":
            raise ValueError("not a work of this peer")
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


try:
    version, make = {"torch-eager": lambda: torch_peer(False), "torch-channels-last": lambda: torch_peer(True), "jax": jax_peer, "keras": keras_peer}[name]()
    print(json.dumps({"ready": True, "name": name, "version": version, "threads": threads}), flush=True)
except Exception as e:
    print(json.dumps({"error": repr(e)}), flush=True)
    sys.exit(1)
for line in sys.stdin:
    r = json.loads(line)
    iters = r.pop("iters")
    key = json.dumps(r, sort_keys=True)
    try:
        if key not in steps:
            steps[key] = make(r)
            for _ in range(5):
                steps[key]()
        ms = []
        for _ in range(iters):
            t = time.perf_counter()
            steps[key]()
            ms.append((time.perf_counter() - t) * 1e3)
        print(json.dumps({"ms": ms, "rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
    except Exception as e:
        print(json.dumps({"error": repr(e)}), flush=True)
