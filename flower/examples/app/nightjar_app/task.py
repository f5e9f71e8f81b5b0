"""The model: names and shapes as Hugging Face's LlamaForCausalLM has them, and first weights."""

import numpy as np


def shapes(config) -> dict[str, tuple[int, ...]]:
    """Each tensor's name and shape, for a tied output head."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = hidden // config["num_attention_heads"]
    keys = head * config["num_key_value_heads"]
    tensors = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (keys, hidden),
            f"{at}.self_attn.v_proj.weight": (keys, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.post_attention_layernorm.weight": (hidden,),
        }
    return tensors | {"model.norm.weight": (hidden,)}


def first_weights(config) -> dict[str, np.ndarray]:
    """Norms of ones, and matrices of small random numbers."""
    random = np.random.default_rng(config["seed"])

    def draw(shape):
        return np.ones(shape) if len(shape) == 1 else 0.02 * random.standard_normal(shape)

    return {name: draw(shape).astype(config["dtype"]) for name, shape in shapes(config).items()}
