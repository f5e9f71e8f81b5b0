#!/usr/bin/env python3
"""Makes muon.json: the same model and batches as the reference's golden.json, stepped by PyTorch's own Muon and AdamW.

    python muon.py FOLDER          the folder beside the repository with `reference/` and `data/`; needs torch >= 2.9

Losses and gradient norms of two trajectories: `torch` is torch.optim.Muon as it is, which iterates in bf16; `f32` is
the same optimizer with that iteration in f32, which is what Nightjar computes.
"""
import json, pathlib, sys
import torch
from torch.optim import _muon

folder = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(folder / "reference"))
import ref

SEED, CONTEXT, BATCH, STEPS, LR = 1, 128, 4, 12, 1e-3


def newton_schulz_f32(grad, coefficients, steps, eps):
    a, b, c = coefficients
    x = grad.float()
    turned = x.size(0) > x.size(1)
    if turned:
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if turned else x


def trajectory():
    model = ref.Model(**ref.SIZES["s"], ctx=CONTEXT)
    flat = model.init(SEED)
    train = ref.Data(folder / "data" / "train.txt", CONTEXT)
    matrices, tables, gains = [], [], []  # views of `flat`, each a parameter of its own
    for (name, shape), part in zip(model.shapes, flat.split(model.sizes)):
        view = part.view(shape)
        if len(shape) == 1:
            gains.append((view, part))
        elif name == "emb":
            tables.append((view, part))
        else:
            pieces = {"qkv": 3, "gu": 2}.get(name.split(".")[-1], 1)
            matrices += [(piece, None) for piece in view.chunk(pieces, 0)]
    parameters = lambda group: [torch.nn.Parameter(view) for view, _ in group]
    muon_parameters, adamw = parameters(matrices), [parameters(tables), parameters(gains)]
    everything = muon_parameters + adamw[0] + adamw[1]
    optimizers = [
        torch.optim.Muon(muon_parameters, lr=LR, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [dict(params=adamw[0], weight_decay=0.1), dict(params=adamw[1], weight_decay=0.0)], lr=LR, betas=(0.9, 0.95)
        ),
    ]
    rows = []
    for step in range(STEPS):
        loss, gradient = model.grad(flat, *train.batch(SEED, 0, step, BATCH))
        norm = gradient.norm().item()
        gradient *= min(1.0, 1.0 / norm)
        for parameter in everything:
            parameter.grad = torch.as_strided(gradient, parameter.shape, parameter.stride(), parameter.storage_offset())
        for optimizer in optimizers:
            optimizer.step()
        rows.append([loss, norm])
    return rows


out = {"seed": SEED, "context": CONTEXT, "batch": BATCH, "lr": LR, "torch_version": torch.__version__.split("+")[0]}
out["torch"] = trajectory()
_muon._zeropower_via_newtonschulz = newton_schulz_f32
out["f32"] = trajectory()
path = pathlib.Path(__file__).with_name("muon.json")
path.write_text(json.dumps(out, indent=1) + "\n")
for step, (plain, exact) in enumerate(zip(out["torch"], out["f32"])):
    print(step, *plain, *exact)
