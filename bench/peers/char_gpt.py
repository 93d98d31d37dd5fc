"""Bits per character of the preset char-gpt, trained with PyTorch: python char_gpt.py [--seeds 1] [--epochs 10] [--threads 2], from the root of the repository.

The same network, text, split, batches of 32 stretches of 128 characters, first distributions, AdamW, schedule, clipping and dropout as spec/presets/char-gpt.yaml; only
the random numbers differ. `joule train char-gpt --seed N` is the other side.
"""
import argparse, gzip, math, time

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, BLOCKS, TIME, DROP = 128, 4, 4, 128, 0.1


def glorot(w, fan_in, fan_out):
    nn.init.uniform_(w, -math.sqrt(6 / (fan_in + fan_out)), math.sqrt(6 / (fan_in + fan_out)))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        d = WIDTH // HEADS
        for l in (self.q, self.k, self.v):  # Keras's fans of a kernel [width, heads, d]
            glorot(l.weight, WIDTH * HEADS, WIDTH * d)
        glorot(self.o.weight, HEADS * d, HEADS * WIDTH)
        for l in (self.up, self.down):
            glorot(l.weight, l.in_features, l.out_features)
        for l in (self.q, self.k, self.v, self.o, self.up, self.down):
            nn.init.zeros_(l.bias)

    def forward(self, x):
        b, t, _ = x.shape
        h = self.n1(x)
        q, k, v = (l(h).view(b, t, HEADS, -1).transpose(1, 2) for l in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, WIDTH)
        x = x + F.dropout(self.o(y), DROP, self.training)
        return x + F.dropout(self.down(F.gelu(self.up(self.n2(x)))), DROP, self.training)


class GPT(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, WIDTH), nn.Embedding(TIME, WIDTH)
        nn.init.normal_(self.tokens.weight, 0, 0.05), nn.init.normal_(self.positions.weight, 0, 0.05)
        self.blocks = nn.Sequential(*[Block() for _ in range(BLOCKS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, vocabulary)
        glorot(self.head.weight, WIDTH, vocabulary), nn.init.zeros_(self.head.bias)

    def forward(self, x, y):
        h = self.norm(self.blocks(self.tokens(x) + self.positions.weight))
        return F.cross_entropy(self.head(h).flatten(0, 1), y.flatten())


def train(seed, epochs):
    text = gzip.open("data/text/opticks.txt.gz", "rt", encoding="utf-8", newline="").read()
    ids = {c: i for i, c in enumerate(sorted(set(text)))}
    all = torch.tensor([ids[c] for c in text])
    cut = len(all) - int(len(all) * 0.1)

    def stretches(x):
        n = (len(x) - 1) // TIME
        return x[: n * TIME].view(n, TIME), x[1 : n * TIME + 1].view(n, TIME)
    (x, y), (tx, ty) = stretches(all[:cut]), stretches(all[cut:])
    torch.manual_seed(seed)
    net = GPT(len(ids))
    decayed = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() < 2]
    opt = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=0.002, eps=1e-7)
    steps = epochs * math.ceil(len(x) / 32)
    rate = lambda s: 0.002 * (s + 1) / 100 if s < 100 else 0.001 * (1 + math.cos(math.pi * (s - 100) / (steps - 100)))
    s, times = 0, []
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(0, len(x), 32):
            t = time.perf_counter()
            for g in opt.param_groups:
                g["lr"] = rate(s)
            j = order[i : i + 32]
            opt.zero_grad(set_to_none=True)
            net(x[j], y[j]).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1)
            opt.step()
            s += 1
            times.append(time.perf_counter() - t)
    net.eval()
    with torch.no_grad():
        losses = [(net(tx[i : i + 32], ty[i : i + 32]).item(), len(tx[i : i + 32])) for i in range(0, len(tx), 32)]
    bits = sum(l * n for l, n in losses) / len(tx) / math.log(2)
    print("seed %d: %.4f bits per character, %.1f ms a step (median), %.0f s" % (seed, bits, 1e3 * sorted(times)[len(times) // 2], sum(times)), flush=True)


p = argparse.ArgumentParser()
p.add_argument("--seeds", type=int, default=1)
p.add_argument("--epochs", type=int, default=10)
p.add_argument("--threads", type=int, default=2)
a = p.parse_args()
torch.set_num_threads(a.threads)
for seed in range(a.seeds):
    train(seed, a.epochs)
