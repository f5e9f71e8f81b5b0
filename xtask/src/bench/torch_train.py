"""One training step after another of a Llama-family model in PyTorch: what `cargo xtask bench train` measures beside ours.

  python torch_train.py cpu|cuda SIZE SAMPLES CONTEXT SECONDS eager|compiled[-bf16]

The same shapes, AdamW with decay on matrices only, clipping by the global norm; prints one JSON object.
"""
import json, math, resource, sys, time
import torch, torch.nn as nn, torch.nn.functional as F

SIZES = {  # vocabulary, hidden, intermediate, layers, heads, kv heads
    "0.8M": (256, 128, 344, 4, 4, 4), "10M": (256, 384, 1024, 6, 6, 6),
    "125M": (32000, 768, 2048, 12, 12, 12), "1B": (32000, 2048, 5632, 22, 32, 4),
}
start = time.time()
device, size, samples, context, seconds, mode = sys.argv[1:]
samples, context, seconds = int(samples), int(context), float(seconds)
V, D, I, L, H, KV = SIZES[size]
S = D // H
fused = getattr(F, "scaled_dot_product_attention", None)


def attend(q, k, v):
    if fused:
        return fused(q, k, v, is_causal=True)
    hidden = torch.ones(context, context, dtype=torch.bool, device=q.device).triu(1)
    return torch.softmax((q @ k.transpose(-1, -2) / math.sqrt(S)).masked_fill(hidden, -math.inf), -1) @ v


class Norm(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(D))

    def forward(self, x):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * self.gain


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.qkv, self.out = nn.Linear(D, (H + 2 * KV) * S, bias=False), nn.Linear(H * S, D, bias=False)
        self.gate_up, self.down = nn.Linear(D, 2 * I, bias=False), nn.Linear(I, D, bias=False)

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).split((H * S, KV * S, KV * S), -1)
        q, k, v = (t.view(B, T, -1, S).transpose(1, 2) for t in (q, k, v))

        def turn(t):
            a, b = t.chunk(2, -1)
            return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)

        q, k = turn(q).to(v.dtype), turn(k).to(v.dtype)
        if KV != H:
            k, v = (t.repeat_interleave(H // KV, 1) for t in (k, v))
        x = x + self.out(attend(q, k, v).transpose(1, 2).reshape(B, T, H * S))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layers, self.norm = nn.Embedding(V, D), nn.ModuleList(Layer() for _ in range(L)), Norm()
        angle = torch.outer(torch.arange(context).float(), 10000.0 ** (-torch.arange(0, S, 2).float() / S))
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=0.02)

    def forward(self, x, y):
        x = self.table(x)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin)
        logits = F.linear(self.norm(x), self.table.weight)
        return F.cross_entropy(logits.float().view(-1, V), y.reshape(-1))


torch.manual_seed(0)
model = Model().to(device)
matrices = [p for p in model.parameters() if p.dim() == 2]
groups = [dict(params=matrices), dict(params=[p for p in model.parameters() if p.dim() == 1], weight_decay=0.0)]
optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
run = torch.compile(model) if mode.startswith("compiled") else model
tokens = torch.randint(0, V, (1 << 18,), device=device)


def sync():
    if device == "cuda":
        torch.cuda.synchronize()


def step():
    at = torch.randint(0, len(tokens) - context - 1, (samples,)).tolist()
    batch = torch.stack([tokens[i : i + context + 1] for i in at])
    with torch.autocast(device, dtype=torch.bfloat16, enabled=mode.endswith("bf16")):
        loss = run(batch[:, :-1], batch[:, 1:])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


loss_first = step()
sync()
first = time.time() - start
step()
times, begin = [], time.time()
while len(times) < 2 or time.time() - begin < seconds:
    since = time.time()
    step()
    sync()
    times.append(time.time() - since)
count = samples * context
mean = sum(times) / len(times)
flops = 6 * sum(p.numel() for p in matrices) + 6 * context * H * S * L
peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(dict(
    steps=len(times), first_step_s=first, loss_first=loss_first, tokens_per_s=count / mean, tokens_per_s_best=count / min(times),
    tokens_per_s_worst=count / max(times), flops=flops * count / mean, memory_bytes=peak)))
