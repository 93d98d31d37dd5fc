"""Test accuracy of the main network, Joule beside Keras 3: python accuracy.py [--seeds 5] [--epochs 10] [--log FILE].

Every seed of every data set on both sides is one training, kept as one JSON line in the log. A training that stands there is not repeated, so a run
that was broken off goes on where it was. Ends with the mean ± standard deviation of both sides and the difference of the means, in points.
"""
import argparse, gzip, json, os, statistics, subprocess, sys, tempfile

DATA = ("mnist", "fashion-mnist")


def joule(command, data, seed, epochs, threads):
    with tempfile.TemporaryDirectory() as out:  # its folder of runs is of no use here
        args = [*command, "train", data, "--seed", str(seed), "--epochs", str(epochs), "--threads", str(threads), "--out", out, "--quiet", "--json"]
        lines = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return json.loads(lines[-1])["test_accuracy"]


def idx(path, header):
    import numpy as np
    with gzip.open(path) as f:
        return np.frombuffer(f.read(), np.uint8, offset=header)


def read(folder):
    """Images scaled to [0, 1] and labels, of training and test."""
    sets = []
    for part in ("train", "t10k"):
        x = idx(os.path.join(folder, part + "-images-idx3-ubyte.gz"), 16).reshape(-1, 28, 28, 1)
        sets.append((x.astype("float32") / 255, idx(os.path.join(folder, part + "-labels-idx1-ubyte.gz"), 8)))
    return sets


def keras(folder, seed, epochs, threads):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import numpy as np
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    L = keras.layers
    (x, y), (tx, ty) = read(folder)
    keras.utils.set_random_seed(seed)
    net = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D(2), L.Conv2D(64, 3, activation="relu"),
                            L.MaxPooling2D(2), L.Flatten(), L.Dense(128, activation="relu"), L.Dense(10, activation="softmax")])
    net.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    # Once a seed is set, fit on TensorFlow repeats the first epoch's order in every epoch (its shuffling is seeded anew with each iterator), which costs
    # accuracy. The orders come from here instead, a new one for each epoch, as fit's documentation promises and as the other side has them.
    orders = np.random.default_rng(seed)
    for _ in range(epochs):
        o = orders.permutation(len(x))
        net.fit(x[o], y[o], batch_size=32, epochs=1, shuffle=False, verbose=0)
    return float(net.evaluate(tx, ty, verbose=0)[1])


def table(rows, epochs):
    print("| data | side | seeds | mean ± sd | difference |\n| --- | --- | --- | --- | --- |")
    for data in DATA:
        means = {}
        for side in ("joule", "keras"):
            a = [100 * r["accuracy"] for r in rows if (r["data"], r["side"], r["epochs"]) == (data, side, epochs)]
            if not a:
                continue
            means[side] = statistics.mean(a)
            sd = "± %.3f" % statistics.stdev(a) if len(a) > 1 else "(one seed)"
            diff = "%+.3f" % (means["joule"] - means["keras"]) if len(means) == 2 else ""
            print("| %s | %s | %d | %.3f %s | %s |" % (data, side, len(a), means[side], sd, diff))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seeds", type=int, default=5)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--log", default="accuracy.jsonl")
    p.add_argument("--joule", default="joule", help="the command, such as 'go run ./cmd/joule'")
    p.add_argument("--mnist", help="folder with MNIST as four .gz files of IDX, for Keras (Joule has it embedded)")
    p.add_argument("--fashion", default="/usr/share/datasets/fashion-mnist")
    p.add_argument("--one", nargs=2, metavar=("FOLDER", "SEED"), help=argparse.SUPPRESS)  # a training of Keras, in a process of its own
    o = p.parse_args()
    if o.one:
        print(json.dumps(keras(o.one[0], int(o.one[1]), o.epochs, o.threads)))
        return
    rows = []
    if os.path.exists(o.log):
        with open(o.log) as f:
            rows = [json.loads(line) for line in f]
    have = {(r["data"], r["side"], r["epochs"], r["seed"]) for r in rows}
    for side in ("joule", "keras"):
        for data in DATA:
            folder = {"mnist": o.mnist, "fashion-mnist": o.fashion}[data]
            if side == "keras" and not (folder and os.path.isdir(folder)):
                print("keras on %s is left out: no folder %s" % (data, folder), file=sys.stderr)
                continue
            for seed in range(o.seeds):
                if (data, side, o.epochs, seed) in have:
                    continue
                if side == "joule":
                    acc = joule(o.joule.split(), data, seed, o.epochs, o.threads)
                else:
                    args = [sys.executable, __file__, "--one", folder, str(seed), "--epochs", str(o.epochs), "--threads", str(o.threads)]
                    acc = json.loads(subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
                rows.append({"data": data, "side": side, "epochs": o.epochs, "seed": seed, "accuracy": acc})
                with open(o.log, "a") as f:
                    f.write(json.dumps(rows[-1]) + "\n")
                print("%s %s seed %d: %.4f" % (side, data, seed, acc), file=sys.stderr)
    table(rows, o.epochs)


if __name__ == "__main__":
    main()
