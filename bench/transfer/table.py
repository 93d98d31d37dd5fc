"""The tables of docs/transfer.md, from the runs that run.sh has made: python table.py FOLDER."""
import glob, json, os, statistics, sys

out = sys.argv[1]


class Run:
    """One training: val_accuracy by epoch, and joules without validation: those of features, and of an epoch."""

    def __init__(self, path):
        with open(path) as f:
            rows = [json.loads(line) for line in f]
        self.accuracy = [r["val_accuracy"] for r in rows[:-1]]
        r = rows[-1]
        with open(os.path.join(r["dir"], "ledger.json")) as f:
            lines = json.load(f)["lines"]
        # What frozen layers say about training examples is the phase predict; what lies outside of programs is shared out by the joules of programs.
        programs = {True: 0.0, False: 0.0}
        for l in lines:
            if l["phase"] not in ("evaluate", "idle"):
                programs[l["phase"] == "predict"] += l["energy"]["joules"]
        self.joules = r["joules"] - r["joules_evaluate"]
        self.once = self.joules * programs[True] / (programs[True] + programs[False])
        self.epoch = (self.joules - self.once) / len(self.accuracy)
        self.seconds = r["seconds"]

    def until(self, target):
        """Joules until the first epoch that is as good as target; None: it never is."""
        for i, a in enumerate(self.accuracy):
            if a >= target:
                return self.once + (i + 1) * self.epoch
        return None

    def within(self, joules):
        """The best accuracy for so many joules."""
        n = int((joules - self.once) / self.epoch * (1 + 1e-9))
        return max(self.accuracy[:n]) if n > 0 else None


def number(v):
    return "%.0f" % v if v >= 100 else "%.3g" % v


def spread(values, form=number, none="never"):
    """Mean and standard deviation; a value that is None was not reached."""
    good = [v for v in values if v is not None]
    if not good:
        return none
    text = form(statistics.mean(good))
    if len(good) > 1:
        text += " ± " + form(statistics.stdev(good))
    return text if len(good) == len(values) else "%s (%d of %d)" % (text, len(good), len(values))


def accuracy(v):
    return "%.3f" % v


def table(title, names, scratch, targets=()):
    """What each of names has reached, and joules until it was as good as scratch at its best (of the same seed) and until each of targets."""
    runs = {n: {int(p.rsplit("-", 1)[1][:-5]): Run(p) for p in glob.glob(os.path.join(out, n + "-[0-9]*.json"))} for n in names}
    runs = {n: r for n, r in runs.items() if r}
    base = runs.get(scratch)
    if not base:
        return
    seeds = sorted(base)
    goals = [("the best of " + scratch, {s: max(base[s].accuracy) for s in seeds})] + [("%.2f" % t, dict.fromkeys(seeds, t)) for t in targets]
    print("\n%s, seeds %s\n" % (title, ", ".join(map(str, seeds))))
    heads = ["", "best accuracy", "joules of all epochs", "of them features"]
    for name, _ in goals:
        heads += ["joules until " + name, "times fewer"]
    heads += ["best within the joules of %s" % scratch, "of its first epoch"]
    print("| %s |\n|%s" % (" | ".join(heads), " --- |" * len(heads)))
    for n, mine in runs.items():
        if sorted(mine) != seeds:
            print("%s has seeds %s, not those of %s" % (n, sorted(mine), scratch), file=sys.stderr)
            continue
        cells = ["%s, %d epochs" % (n, len(mine[seeds[0]].accuracy)), spread([max(mine[s].accuracy) for s in seeds], accuracy), spread([mine[s].joules for s in seeds]), spread([mine[s].once for s in seeds])]
        for _, goal in goals:
            until, of = [mine[s].until(goal[s]) for s in seeds], [base[s].until(goal[s]) for s in seeds]
            cells += [spread(until), spread([b / u if u and b else None for u, b in zip(until, of)])]
        for budget in ([base[s].joules for s in seeds], [base[s].once + base[s].epoch for s in seeds]):
            cells.append(spread([mine[s].within(1.0001 * j) for s, j in zip(seeds, budget)], accuracy, "–"))
        print("| %s |" % " | ".join(cells))


text = ["scratch", "tune", "head", "head8", "bag"]
table("sections of packages, against the same encoder from scratch", text, "scratch")
table("sections of packages, against the mean of word pieces from scratch", text, "bag")
for data, targets in (("clothes", [0.8]), ("digits", [0.94])):
    table(data + ", against the same network from scratch", [data + "-" + k for k in ("scratch", "from", "frozen")], data + "-scratch", targets)
