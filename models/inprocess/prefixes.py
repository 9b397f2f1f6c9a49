"""The prefix cache: keys and values of prompts that trees share.

A node's prompt is its parent's prompt plus one step. The cache stores states by piece (the question, each step), so an
expansion computes only its last step. Pieces that were used least recently are dropped first. A dropped piece is
computed again, with the same result (models/inprocess/attention.py says where this holds to the last bit).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from models.inprocess.attention import (
    MASKED,
    MIN_KEYS,
    MIN_ROWS,
    ROW_MULTIPLE,
    attend,
    attending,
    check_plain,
    grouped,
    round_up,
)

NAME = "prefixes"
CPU_TOKENS, GPU_TOKENS = 1024, 16384  # of one forward pass; more would not fit into a CPU's caches
MAX_BYTES = 2**30  # of the states in a cache

Pieces = Sequence[Sequence[int]]  # ids of the question and of each step


@dataclass(frozen=True, slots=True)
class States:
    """Keys and values of tokens, each of shape (layers, [batch,] heads, tokens, width)."""

    keys: torch.Tensor
    values: torch.Tensor

    @property
    def num_bytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def tokens(self, at: slice) -> States:
        return States(self.keys[..., at, :], self.values[..., at, :])

    def row(self, i: int) -> States:
        return States(self.keys[:, i], self.values[:, i])


class PrefixCache:
    """Computes the states of prompts with `model`, the transformer of a causal LM. Not thread-safe."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._cached: OrderedDict[tuple[int, ...], States] = OrderedDict()  # by all ids up to a piece's end
        self._num_bytes = 0
        self.num_cached_tokens = 0
        self.last_cached: list[int] = []  # the number of cached tokens of each prompt of the last batch

    def states(self, prompts: Sequence[Pieces]) -> tuple[States, torch.Tensor]:
        """Return the states of a batch, left-aligned, and the prompts' lengths, shape (batch).

        Raises ValueError for a prompt without tokens.
        """
        rows = [[token for piece in prompt for token in piece] for prompt in prompts]
        if not all(rows):
            raise ValueError(f"prompt {rows.index([])} of the batch has no token")
        cached = [self._find(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
        num_cached = [sum(part.keys.shape[-2] for part in parts) for parts in cached]
        batch = _Batch(self._model, rows, cached, num_cached).states()
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            self._add(row, prompt, num_cached[i], batch.row(i))
        self.num_cached_tokens += sum(num_cached)
        self.last_cached = num_cached
        return batch, torch.tensor(list(map(len, rows)), device=batch.keys.device)

    def _find(self, row: list[int], prompt: Pieces) -> list[States]:
        """Return the states of the longest cached prefix, piece by piece, and mark them as used."""
        keys = []
        for end in accumulate(map(len, prompt)):
            if (key := tuple(row[:end])) not in self._cached:
                break
            keys.append(key)
        for key in reversed(keys):
            self._cached.move_to_end(key)
        return [self._cached[key] for key in keys]

    def _add(self, row: list[int], prompt: Pieces, start: int, states: States) -> None:
        """Cache the pieces of a prompt from token `start` on, and drop what exceeds MAX_BYTES."""
        ends = [end for end in accumulate(map(len, prompt)) if end > start]
        for begin, end in zip([start, *ends], ends, strict=False):
            key = tuple(row[:end])
            if key in self._cached:  # another prompt of this batch has the same prefix
                continue
            part = states.tokens(slice(begin, end))
            part = States(part.keys.clone(), part.values.clone())
            self._cached[key] = part
            self._num_bytes += part.num_bytes
        while self._num_bytes > MAX_BYTES:
            _, part = self._cached.popitem(last=False)
            self._num_bytes -= part.num_bytes


class _Batch:
    """The states of a batch of prompts, left-aligned: the cached ones, and those that the model computes."""

    def __init__(self, model: Any, rows: list[list[int]], cached: list[list[States]], num_cached: list[int]) -> None:
        self._model, self._cached, self._num_cached = model, cached, num_cached
        self._new_tokens = [row[count:] for row, count in zip(rows, num_cached, strict=True)]
        self._num_tokens = round_up(max(map(len, rows)), MIN_KEYS)
        self._states: States | None = None

    def states(self) -> States:
        """Compute what is not cached: a few rows with about equally many new tokens in each forward pass."""
        new = self._new_tokens
        waiting = sorted((i for i, tokens in enumerate(new) if tokens), key=lambda i: -len(new[i]))
        max_tokens = CPU_TOKENS if self._model.device.type == "cpu" else GPU_TOKENS
        while waiting:
            at_once = max(1, max_tokens // _num_columns(new[waiting[0]]))
            self._compute(waiting[:at_once])
            waiting = waiting[at_once:]
        if self._states is None:  # everything is cached
            part = next(part for parts in self._cached for part in parts)
            return self._allocate(part.keys[0], part.values[0])
        return self._states

    def _compute(self, rows: list[int]) -> None:
        new_tokens = [self._new_tokens[row] for row in rows]
        ids = torch.zeros((len(rows), max(map(_num_columns, new_tokens))), dtype=torch.long)
        new = torch.zeros_like(ids, dtype=torch.bool)
        for i, tokens in enumerate(new_tokens):
            ids[i, : len(tokens)], new[i, : len(tokens)] = torch.tensor(tokens), True
        positions = torch.tensor([self._num_cached[row] for row in rows])[:, None] + torch.arange(ids.shape[1])
        positions = positions.where(new, 0)
        self._end = round_up(int(positions.max()) + 1, MIN_KEYS)
        self._rows, self._new, positions, ids = (
            one.to(self._model.device) for one in (torch.tensor(rows), new, positions, ids)
        )
        self._at = self._rows[:, None].expand_as(self._new)[self._new], positions[self._new]
        later = torch.arange(self._end, device=positions.device) > positions[:, None, :, None]
        self._bias = torch.where(later, MASKED, 0.0).to(self._model.dtype)
        with attending(self._model, NAME, self):
            self._model(ids, position_ids=positions, use_cache=False)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Store a layer's new keys and values, and attend to all up to each query's position."""
        states = self._states or self._allocate(key, value)
        group = query.shape[1] // key.shape[1]
        key, value = (self._store(kept[layer], one) for kept, one in ((states.keys, key), (states.values, value)))
        if key.device.type != "cpu":  # a GPU's fast kernels do not support a mask together with grouped heads
            key, value = (one.repeat_interleave(group, dim=1) for one in (key, value))
            return scaled_dot_product_attention(query, key, value, self._bias, scale=scaling)
        bias = self._bias.repeat(1, 1, group, 1)
        found, _ = attend(grouped(query, key.shape[1]), key, value, scaling, bias)
        return found.view(*query.shape[:-1], -1)

    def _store(self, kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """Store a layer's new keys or values; return those of the rows being computed, up to the last position."""
        rows, positions = self._at
        kept[rows, :, positions] = new.transpose(1, 2)[self._new]
        return kept[self._rows, :, : self._end]

    def _allocate(self, key: torch.Tensor, value: torch.Tensor) -> States:
        """Make tensors for the whole batch, like a layer's `key` and `value`, and copy the cached states into them."""
        layers, rows = self._model.config.num_hidden_layers, len(self._cached)
        made = States(
            *(one.new_zeros(layers, rows, one.shape[-3], self._num_tokens, one.shape[-1]) for one in (key, value))
        )
        for i, parts in enumerate(self._cached):
            row, at = made.row(i), 0
            for part in parts:
                end = at + part.keys.shape[-2]
                row.keys[..., at:end, :], row.values[..., at:end, :] = part.keys, part.values
                at = end
        self._states = made
        return made


def _num_columns(tokens: list[int]) -> int:
    """Return the padded length of a row, with which no product has too few rows."""
    return round_up(max(MIN_ROWS, len(tokens)), ROW_MULTIPLE)


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, *, scaling: float, **options: Any
) -> tuple[torch.Tensor, None]:
    """Attend from new tokens to the cached and new ones; an attention function of transformers.

    `query` has shape (rows, heads, tokens, width).
    """
    check_plain(options)
    return module.config.attended.attend(module.layer_idx, query, key, value, scaling).transpose(1, 2), None


AttentionInterface.register(NAME, attention)
