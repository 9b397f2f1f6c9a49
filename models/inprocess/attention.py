"""Attention whose result does not hang on what else is in the batch, to the last bit.

A sum of floats depends on the order in which it is added, and a matrix product chooses that order by its shape: by how
many rows it has where they are fewer than a few, and by how many keys it adds up where they are many. So keys lie from
the left at their own positions, are added up in blocks of one size, and where a batch's size decides how many rows a
product has, they are at least as many as the constants below say. These were found in float32 on CPUs with AVX-512,
with one thread and two, and there tests/models/test_batches.py holds them to it; elsewhere, and on a GPU, shapes may
move the last bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rstar.protocols import UserError

HIDDEN = -1e9  # finite, so that a prompt without any visible token gives no NaN
BLOCK = 192  # keys whose values are added up in one product: more are cut by their number
MIN_KEYS = 32  # of a softmax, fewer than 17 are added up in another order; prompts have a multiple of it
MIN_ROWS = 12  # of a linear layer on two threads
ROWS_APART = 4  # a layer with a single output takes so many at once; and two threads share their activations evenly
MIN_QUERIES = 4  # of a product with keys


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and the logarithm of its normaliser; queries (..., queries, width), keys and values (..., keys, width).

    `bias` is added to the scores, of shape (..., queries, keys).
    """
    scores = (query * scaling) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    shares = scores.softmax(-1)
    weight = scores.amax(-1, keepdim=True) - shares.amax(-1, keepdim=True).log()  # without another exponential
    block = BLOCK if query.device.type == "cpu" else max(1, key.shape[-2])
    first, *rest = (a @ b for a, b in zip(shares.split(block, -1), value.split(block, -2), strict=True))
    for part in rest:
        first += part
    return first, weight


def check_window(checkpoint: object, config: Any, key: str, length: int) -> None:
    """Refuse a model whose tokens do not see all `length` before them, the recipe's `key`: attention here is full."""
    if (window := getattr(config, "sliding_window", None)) and window < length:
        raise UserError(f"{key} = {length}: {checkpoint} attends to {window} tokens; lower it to that")


def check_plain(options: dict[str, Any]) -> None:
    """Refuse what a model asks of its attention beyond a softmax of scaled scores."""
    if options.get("softcap") or options.get("s_aux") is not None:
        raise UserError("the engine in process has no soft-capped or sink attention; serve this model with vLLM")


def grouped(query: torch.Tensor, num_key_heads: int) -> torch.Tensor:
    """From (rows, heads, tokens, width) to (rows, key heads, queries of a head one after the other, width)."""
    return query.reshape(len(query), num_key_heads, -1, query.shape[-1])


def causal(num_queries: int, length: int, key: torch.Tensor) -> torch.Tensor | None:
    """What hides the later ones of the newest `length` tokens, shape (queries, tokens); None for a single token."""
    if length == 1:
        return None
    bias = torch.full((length, key.shape[-2]), HIDDEN, dtype=key.dtype, device=key.device)
    return bias.triu(key.shape[-2] - length + 1).repeat(num_queries // length, 1)


def up(number: int, multiple: int) -> int:
    """The multiple of `multiple` that is not less than `number`."""
    return -(-number // multiple) * multiple


def filled_up(rows: torch.Tensor) -> torch.Tensor:
    """MIN_ROWS rows at least, and a multiple of ROWS_APART: after the last the first again, for nobody to read."""
    number = max(MIN_ROWS, up(len(rows), ROWS_APART))
    return rows if number == len(rows) else rows[torch.arange(number, device=rows.device) % len(rows)]


@contextmanager
def attending(model: Any, name: str, context: Any) -> Iterator[None]:
    """Within the block `model` attends by the interface `name`, which finds `context` in its `config.attended`."""
    before = model.config._attn_implementation
    model.config._attn_implementation, model.config.attended = name, context
    try:
        yield
    finally:
        model.config._attn_implementation = before
        del model.config.attended
