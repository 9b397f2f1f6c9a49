"""A larger model that says what a small one says, up to rounding: what a search costs on a GPU, with true texts.

The small model's weights are one corner of the large one's. What is new reads anything, at random, and its output
counts for nothing: no column of an output projection, and no layer's, lets it through (arXiv 1511.05641 grows networks
so). A forward pass costs what the large configuration costs.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

HIDDEN, LAYERS, INTERMEDIATE = 768, 16, 3072  # with heads of 32: 138 million parameters
TO_RESIDUAL = ("o_proj.weight", "down_proj.weight")
WITHIN_RESIDUAL = ("norm.weight", "layernorm.weight", "embed_tokens.weight", "lm_head.weight", "score.weight")


def widen(
    checkpoint: Path, out: Path, *, hidden: int = HIDDEN, layers: int = LAYERS, intermediate: int = INTERMEDIATE
) -> int:
    """Write the checkpoint `out`, the model of `checkpoint` in a larger one; return its number of parameters."""
    config = AutoConfig.from_pretrained(checkpoint)
    small_width, group = config.hidden_size, config.num_attention_heads // config.num_key_value_heads
    kind = AutoModelForSequenceClassification if hasattr(config, "rstar_head") else AutoModelForCausalLM
    small = kind.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = hidden, intermediate, layers
    config.num_attention_heads = hidden // config.head_dim
    config.num_key_value_heads = config.num_attention_heads // group
    config.layer_types = ["full_attention"] * layers
    torch.manual_seed(0)
    large = kind.from_config(config, dtype=torch.float32)
    state = large.state_dict()
    for name, weight in state.items():
        if name.endswith(TO_RESIDUAL) or name.endswith(WITHIN_RESIDUAL) or name.endswith("bias"):
            weight.zero_()
        if (corner := small.get(name)) is not None:
            if name.endswith("norm.weight"):  # of a mean over more places, the new ones of them zero
                corner = corner * (small_width / hidden) ** 0.5
            weight[tuple(slice(0, size) for size in corner.shape)] = corner
    large.load_state_dict(state)
    large.save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)
    return sum(weight.numel() for weight in large.parameters())
