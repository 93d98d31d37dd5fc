"""The main job as a program of another framework: python job.py torch-eager | torch-channels-last | keras THREADS FOLDER.

Trains the main network for one epoch on the IDX files in FOLDER (uncompressed, as `joule bench job --peers` writes them), tests it, and ends with a line of JSON: when the
first step had ended (RFC 3339), the most memory, the test accuracy, and the version. Written as each framework's documentation advises for data that fits in memory.
"""
import datetime, json, os, sys

name, threads, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
import numpy as np

first = None


def step_done():
    global first
    if first is None:
        first = datetime.datetime.now(datetime.timezone.utc)


def read():
    """Images scaled to [0, 1] and labels, of training and test."""
    sets = []
    for part in ("train", "t10k"):
        x = np.fromfile(os.path.join(folder, part + "-images-idx3-ubyte"), np.uint8, offset=16).reshape(-1, 28, 28, 1)
        sets.append((x.astype(np.float32) / 255, np.fromfile(os.path.join(folder, part + "-labels-idx1-ubyte"), np.uint8, offset=8)))
    return sets


def keras_job():
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    import keras
    L = keras.layers

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            step_done()
    (x, y), test = read()
    net = keras.Sequential([keras.Input((28, 28, 1)), L.Conv2D(32, 3, activation="relu"), L.MaxPooling2D(2), L.Conv2D(64, 3, activation="relu"),
                            L.MaxPooling2D(2), L.Flatten(), L.Dense(128, activation="relu"), L.Dense(10, activation="softmax")])
    net.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    net.fit(x, y, batch_size=32, epochs=1, validation_data=test, callbacks=[Watch()], verbose=0)
    return float(net.evaluate(*test, verbose=0)[1]), keras.__version__ + " on TensorFlow " + tf.__version__


def torch_job():
    import torch
    torch.set_num_threads(threads)
    fmt = torch.channels_last if name == "torch-channels-last" else torch.contiguous_format
    nn = torch.nn
    (x, y), (tx, ty) = [(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=fmt), torch.from_numpy(y.astype(np.int64))) for x, y in read()]
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10)).to(memory_format=fmt)
    opt = torch.optim.Adam(net.parameters(), eps=1e-7)
    loss = nn.CrossEntropyLoss()
    for i in torch.randperm(len(x)).split(32):
        opt.zero_grad(set_to_none=True)
        loss(net(x[i]), y[i]).backward()
        opt.step()
        step_done()
    net.eval()
    with torch.inference_mode():
        right = sum(int((net(a).argmax(1) == b).sum()) for a, b in zip(tx.split(128), ty.split(128)))
    return right / len(ty), torch.__version__


def peak():
    """The most memory of this program (VmHWM, see internal/rss)."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM:"))


accuracy, version = keras_job() if name == "keras" else torch_job()
print(json.dumps({"first_step_at": first.isoformat(), "peak_rss_bytes": peak(), "test_accuracy": accuracy, "version": version}))
