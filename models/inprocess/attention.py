"""Attention whose results do not depend on what else is in the batch, down to the last bit.

A sum of floats depends on the order of its terms. A matrix product chooses that order by its shape: by the number of
rows if there are few, and by the number of summed keys if there are many. Therefore keys are left-aligned at their own
positions and summed in blocks of one size, and a product whose number of rows depends on the batch has at least the
number of rows given below. The constants were found for float32 on CPUs with AVX-512, for one thread and two, where
tests/models/inprocess/test_batches.py checks them. On other CPUs and on GPUs, shapes may change the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rstar.protocols import UserError

MASKED = -1e9  # added to a score; finite, so that a row in which everything is masked gives no NaN
BLOCK = 192  # keys whose values are summed in one product; larger products are split by their number of keys
MIN_KEYS = 32  # of a softmax, which sums fewer than 17 in another order; prompts are padded to a multiple of it
MIN_ROWS = 12  # of a linear layer on two threads
ROW_MULTIPLE = 4  # a layer with one output processes four rows at a time, and two threads get equal shares
MIN_QUERIES = 4  # of a product with keys


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return attention and the logarithm of its normalizer.

    Queries have shape (..., queries, width), keys and values (..., keys, width). `bias`, of shape (..., queries, keys),
    is added to the scores.
    """
    scores = (query * scaling) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    shares = scores.softmax(-1)
    weight = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()  # a logsumexp without another exp
    block = BLOCK if query.device.type == "cpu" else max(1, key.shape[-2])
    first, *rest = (a @ b for a, b in zip(shares.split(block, -1), value.split(block, -2), strict=True))
    for part in rest:
        first += part
    return first, weight


def check_window(checkpoint: object, config: Any, key: str, length: int) -> None:
    """Refuse a model with a sliding window shorter than `length`, the value of the recipe's `key`.

    Attention here is always full.
    """
    if (window := getattr(config, "sliding_window", None)) and window < length:
        raise UserError(f"{key} = {length}: {checkpoint} attends to {window} tokens; lower it to that")


def check_plain(options: dict[str, Any]) -> None:
    """Refuse attention that is more than a softmax of scaled scores."""
    if options.get("softcap") or options.get("s_aux") is not None:
        raise UserError("the engine in process has no soft-capped or sink attention; serve this model with vLLM")


def grouped(query: torch.Tensor, num_key_heads: int) -> torch.Tensor:
    """Reshape queries (rows, heads, tokens, width) to (rows, key heads, heads per key head · tokens, width)."""
    return query.reshape(len(query), num_key_heads, -1, query.shape[-1])


def causal(num_queries: int, length: int, key: torch.Tensor) -> torch.Tensor | None:
    """Return the bias, shape (queries, tokens), that masks later tokens among the last `length`; None for one token."""
    if length == 1:
        return None
    bias = torch.full((length, key.shape[-2]), MASKED, dtype=key.dtype, device=key.device)
    return bias.triu(key.shape[-2] - length + 1).repeat(num_queries // length, 1)


def round_up(number: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `number`."""
    return -(-number // multiple) * multiple


def padded(rows: torch.Tensor) -> torch.Tensor:
    """Repeat the first rows until there are MIN_ROWS and a multiple of ROW_MULTIPLE; nothing reads the copies."""
    number = max(MIN_ROWS, round_up(len(rows), ROW_MULTIPLE))
    return rows if number == len(rows) else rows[torch.arange(number, device=rows.device) % len(rows)]


@contextmanager
def attending(model: Any, name: str, context: Any) -> Iterator[None]:
    """Have `model` use the attention registered as `name`, which reads `context` from `config.attended`."""
    before = model.config._attn_implementation
    model.config._attn_implementation, model.config.attended = name, context
    try:
        yield
    finally:
        model.config._attn_implementation = before
        del model.config.attended
