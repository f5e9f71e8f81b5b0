"""Opens an export with the programs that labs use, and holds their logits against a model of plain numpy.

    python export_check.py CASES.json

Each case is {"hf": FOLDER, "gguf": FOLDER, "text": TEXT, "tolerance": T}. For each a line of JSON: how far apart they are.
"""

import json
import os
import sys
import traceback
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from transformers import AutoConfig, AutoTokenizer, GenerationConfig


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder's safetensors; numpy itself has no bf16."""
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        data = file.read_bytes()
        begin = 8 + int.from_bytes(data[:8], "little")
        for name, tensor in json.loads(data[8:begin]).items():
            if name == "__metadata__":
                continue
            part = data[begin + tensor["data_offsets"][0] : begin + tensor["data_offsets"][1]]
            if tensor["dtype"] == "BF16":
                values = (np.frombuffer(part, np.uint16).astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(part, {"F32": np.float32, "F16": np.float16}[tensor["dtype"]])
            weights[name] = values.astype(np.float64).reshape(tensor["shape"])
    return weights


def logits_of(config, w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    """A Llama, as its paper and Hugging Face's layout have it, in f64. Of each position: a number a token."""
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    dim = config.head_dim or config.hidden_size // heads
    theta = (getattr(config, "rope_parameters", None) or {}).get("rope_theta") or config.rope_theta
    turns = np.arange(len(ids))[:, None] * theta ** (-np.arange(0, dim, 2) / dim)[None, :]
    cos, sin = (np.concatenate([f(turns)] * 2, -1)[None] for f in (np.cos, np.sin))

    def norm(x, gain):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * gain

    def turned(x):
        half = dim // 2
        return x * cos + np.concatenate([-x[..., half:], x[..., :half]], -1) * sin

    def split(x, count):
        return x.reshape(len(ids), count, dim).transpose(1, 0, 2)

    def part_of(layer, part):
        return w[f"model.layers.{layer}.{part}.weight"]

    x = w["model.embed_tokens.weight"][ids]
    for layer in range(config.num_hidden_layers):
        of = partial(part_of, layer)
        y = norm(x, of("input_layernorm"))
        q, k, v = (
            split(y @ of(f"self_attn.{part}_proj").T, count)
            for part, count in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = turned(q), np.repeat(turned(k), heads // groups, 0)
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(dim)
        scores = np.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        y = (shares @ np.repeat(v, heads // groups, 0)).transpose(1, 0, 2).reshape(len(ids), heads * dim)
        x = x + y @ of("self_attn.o_proj").T
        y = norm(x, of("post_attention_layernorm"))
        gate = y @ of("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ of("mlp.up_proj").T)) @ of("mlp.down_proj").T
    head = w.get("lm_head.weight", w["model.embed_tokens.weight"])
    return norm(x, w["model.norm.weight"]) @ head.T


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def by_torch(folder: Path, ids: list[int]) -> np.ndarray | None:
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError:
        return None
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


class LlamaCpp:
    """llama.cpp, as a server in this process."""

    def __init__(self, file: Path, context: int) -> None:
        import xllamacpp as llama

        params = llama.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context
        params.n_parallel = 1
        params.warmup = False
        params.cpuparams.n_threads = 1
        # Keys and values as they are computed, so that what is compared is the model.
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.port = 0
        self.server = llama.Server(params)

    def ask(self, path: str, question: dict) -> dict:
        body = json.dumps(question).encode()
        request = urllib.request.Request(
            self.server.listening_address + path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        return self.ask("/tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]

    def last_log_shares(self, ids: list[int], vocabulary: int) -> np.ndarray:
        question = {"prompt": ids, "n_predict": 1, "n_probs": vocabulary, "temperature": 0.0, "cache_prompt": False}
        told = self.ask("/completion", question)["completion_probabilities"][0]["top_logprobs"]
        shares = np.full(vocabulary, np.nan)
        for each in told:
            shares[each["id"]] = each["logprob"]
        return shares


def check(hf: Path, gguf: Path, text: str, tolerance: float) -> dict:
    config, tokenizer = AutoConfig.from_pretrained(hf), AutoTokenizer.from_pretrained(hf)
    GenerationConfig.from_pretrained(hf)
    ids = tokenizer(text)["input_ids"]
    assert ids == tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids, (
        "something is put around a text"
    )
    assert tokenizer.decode(ids) == text, tokenizer.decode(ids)
    logits = logits_of(config, weights_of(hf), ids)
    told = {"ids": len(ids), "logits": float(np.abs(logits).max())}
    if (torch := by_torch(hf, ids)) is not None:
        told["transformers"] = float(np.abs(torch - logits).max())
    file = gguf / "model.gguf"
    assert GGUFReader(file).fields["general.architecture"].contents() == "llama"
    llama = LlamaCpp(file, config.max_position_embeddings)
    assert llama.tokens(text) == ids, (llama.tokens(text), ids)
    shares = llama.last_log_shares(ids, config.vocab_size)
    assert np.isfinite(shares).all(), "llama.cpp did not tell all tokens"
    told["llama.cpp"] = float(np.abs(shares - log_softmax(logits)[-1]).max())
    assert max(told.get("transformers", 0), told["llama.cpp"]) < tolerance, told
    return told


def main() -> None:
    for case in json.loads(Path(sys.argv[1]).read_text()):
        told = check(Path(case["hf"]), Path(case["gguf"]), case["text"], case["tolerance"])
        print(json.dumps(told), flush=True)
    # llama.cpp's threads do not end by themselves.
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
