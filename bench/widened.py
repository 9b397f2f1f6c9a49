"""A larger model with the outputs of a small one, up to rounding: to measure a search on a GPU with realistic texts.

The weights of the small model are one corner of the large model's. The new units have random inputs, and zeros in the
output projections hide their outputs (as in Net2Net, arXiv 1511.05641). A forward pass costs as much as that of any
model of the large size.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

HIDDEN, LAYERS, INTERMEDIATE = 768, 16, 3072  # 138 million parameters with attention heads of 32
TO_RESIDUAL = ("o_proj.weight", "down_proj.weight")
WITHIN_RESIDUAL = ("norm.weight", "layernorm.weight", "embed_tokens.weight", "lm_head.weight", "score.weight")


def widen(
    checkpoint: Path, out: Path, *, hidden: int = HIDDEN, layers: int = LAYERS, intermediate: int = INTERMEDIATE
) -> int:
    """Write the widened model of `checkpoint` to `out`; return its number of parameters."""
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
            if name.endswith("norm.weight"):  # the mean is over more units, and the new ones are zero
                corner = corner * (small_width / hidden) ** 0.5
            weight[tuple(slice(0, size) for size in corner.shape)] = corner
    large.load_state_dict(state)
    large.save_pretrained(out)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(out)
    return sum(weight.numel() for weight in large.parameters())
