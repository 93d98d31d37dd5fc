"""The main network pruned while it trains, Joule beside torch.nn.utils.prune: python prune.py [--seeds 3] [--epochs 10] [--sparsity 0.95] [--log FILE].

Both remove the smallest weights of all kernels together, every 50 steps, along the same cubic schedule that ends after six tenths of the steps (bench/compress/prune.yaml). Each training is one JSON line in the
log, and one that stands there is not repeated. It ends with test accuracy, the share of zeros, seconds of training, and the time of a prediction of 32 pictures before and after the masks have become zeros.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile, time

from accuracy import read

HERE = os.path.dirname(os.path.abspath(__file__))
START, STOP, EVERY = 0.0, 0.6, 50  # of bench/compress/prune.yaml


def joule(command, seed, epochs, sparsity, threads):
    with open(os.path.join(HERE, "..", "compress", "prune.yaml")) as f:
        text = f.read()
    old = "sparsity: 0.95, global: true, start: %g, stop: %g, every: %d" % (START, STOP, EVERY)
    if old not in text:
        raise SystemExit("prune.py: bench/compress/prune.yaml has another schedule than this program")
    with tempfile.TemporaryDirectory() as out:
        spec = os.path.join(out, "prune.yaml")
        with open(spec, "w") as f:
            f.write(text.replace("sparsity: 0.95", "sparsity: %g" % sparsity))
        args = [*command, "train", spec, "--seed", str(seed), "--epochs", str(epochs), "--threads", str(threads), "--out", out, "--quiet", "--json"]
        r = json.loads(subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return {"accuracy": r["test_accuracy"], "sparsity": r["sparsity"], "seconds": r["seconds"]}


def torch_side(folder, seed, epochs, sparsity, threads):
    import torch
    from torch import nn
    from torch.nn.utils import prune
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    (x, y), (tx, ty) = [(torch.from_numpy(a.transpose(0, 3, 1, 2).copy()), torch.from_numpy(b.astype("int64"))) for a, b in read(folder)]
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
                        nn.Flatten(), nn.Linear(1600, 128), nn.ReLU(), nn.Linear(128, 10))  # not channels-last, which is faster: torch.nn.utils.prune cannot make a vector of such weights
    layers = [m for m in net if hasattr(m, "weight")]
    for m in layers:  # Keras's and Joule's beginnings
        nn.init.xavier_uniform_(m.weight)
        nn.init.zeros_(m.bias)
    kernels = [(m, "weight") for m in layers]
    total, gone = sum(m.weight.numel() for m in layers), 0

    def predicts():
        """Milliseconds of a prediction of 32 pictures, the median of 200."""
        times = []
        with torch.inference_mode():
            for i in range(210):
                t = time.perf_counter()
                torch.softmax(net(x[:32]), 1)
                times.append(time.perf_counter() - t)
        return 1e3 * statistics.median(times[10:])
    dense = predicts()
    opt, loss = torch.optim.Adam(net.parameters(), eps=1e-7), nn.CrossEntropyLoss()
    steps, step, began = epochs * -(-len(x) // 32), 0, time.perf_counter()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), 32):
            o = order[i:i + 32]
            opt.zero_grad(set_to_none=True)
            loss(net(x[o]), y[o]).backward()
            opt.step()
            step += 1
            if step % EVERY and step != steps:
                continue
            rest = max(0.0, 1 - (step / steps - START) / (STOP - START))
            more = round(total * sparsity * (1 - rest ** 3)) - gone
            if more > 0:
                # The optimizer goes on with weight_orig, which is the same tensor as weight was.
                prune.global_unstructured(kernels, pruning_method=prune.L1Unstructured, amount=more)
                gone += more
    seconds = time.perf_counter() - began
    masked = predicts()
    for m in layers:
        prune.remove(m, "weight")
    with torch.inference_mode():
        right = sum((net(tx[i:i + 500]).argmax(1) == ty[i:i + 500]).sum().item() for i in range(0, len(tx), 500))
    zeros = sum((m.weight == 0).sum().item() for m in layers)
    return {"accuracy": right / len(tx), "sparsity": zeros / total, "seconds": seconds, "ms": {"dense": dense, "masked": masked, "zeros": predicts()}, "version": torch.__version__}


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--joule", default="joule", help="the command, such as 'go run ./cmd/joule'")
    p.add_argument("--data", default="/usr/share/datasets/fashion-mnist", help="folder of Fashion-MNIST's four files")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--sparsity", type=float, default=0.95)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--sides", nargs="+", default=["joule", "torch"], choices=["joule", "torch"])
    p.add_argument("--log", default="prune.jsonl")
    a = p.parse_args()
    rows = []
    if os.path.exists(a.log):
        with open(a.log) as f:
            rows = [json.loads(line) for line in f]
    for side in a.sides:
        for seed in range(a.seeds):
            key = {"side": side, "seed": seed, "epochs": a.epochs, "asked": a.sparsity}
            if any(all(r[k] == v for k, v in key.items()) for r in rows):
                continue
            r = joule(a.joule.split(), seed, a.epochs, a.sparsity, a.threads) if side == "joule" else torch_side(a.data, seed, a.epochs, a.sparsity, a.threads)
            rows.append({**key, **r})
            with open(a.log, "a") as f:
                f.write(json.dumps(rows[-1]) + "\n")
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    print("| side | seeds | test accuracy, mean ± sd | zeros | seconds |\n| --- | --- | --- | --- | --- |")
    for side in ("joule", "torch"):
        mine = [r for r in rows if (r["side"], r["epochs"], r["asked"]) == (side, a.epochs, a.sparsity)]
        if not mine:
            continue
        acc = [r["accuracy"] for r in mine]
        print("| %s | %d | %.4f ± %.4f | %.1f%% | %s |" % (side, len(mine), statistics.mean(acc), statistics.stdev(acc) if len(acc) > 1 else 0, 100 * statistics.mean(r["sparsity"] for r in mine),
                                                        ", ".join("%.0f" % r["seconds"] for r in mine)))
        for r in mine:
            if "ms" in r:
                print("torch %s, seed %d, a prediction of 32 pictures: dense %.3f ms, masked %.3f, zeros %.3f" % (r["version"], r["seed"], r["ms"]["dense"], r["ms"]["masked"], r["ms"]["zeros"]), file=sys.stderr)


if __name__ == "__main__":
    main()
