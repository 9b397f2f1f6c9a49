"""Keys and values of prompts that trees share: a node's prompt is its parent's and one step more.

Kept by piece (the question, each step), so that an expansion computes its last step alone. Least recently used pieces
go first; what is gone is computed again, and comes out the same (models/attention.py says where to the last bit).
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
    HIDDEN,
    MIN_KEYS,
    MIN_ROWS,
    ROWS_APART,
    attend,
    attending,
    check_plain,
    grouped,
    up,
)

NAME = "prefixes"
CPU_TOKENS, GPU_TOKENS = 1024, 16384  # of several prompts at once: more go slower for a CPU's caches

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


class _Window:
    """The states of a batch, each row's from the left: what is known, and what the model is about to compute."""

    def __init__(self, model: Any, rows: list[list[int]], known: list[list[States]], num_known: list[int]) -> None:
        self._model, self._known, self._num_known = model, known, num_known
        self._fresh = [row[count:] for row, count in zip(rows, num_known, strict=True)]
        self._num_tokens = up(max(map(len, rows)), MIN_KEYS)
        self._states: States | None = None

    def states(self) -> States:
        """Have the model compute what is not known, a few rows at once with about as much to do."""
        waiting = sorted((i for i, tokens in enumerate(self._fresh) if tokens), key=lambda i: -len(self._fresh[i]))
        max_tokens = CPU_TOKENS if self._model.device.type == "cpu" else GPU_TOKENS
        while waiting:
            at_once = max(1, max_tokens // _columns(self._fresh[waiting[0]]))
            self._compute(waiting[:at_once])
            waiting = waiting[at_once:]
        if self._states is None:  # all is known
            part = next(part for parts in self._known for part in parts)
            return self._make(part.keys[0], part.values[0])
        return self._states

    def _compute(self, rows: list[int]) -> None:
        fresh = [self._fresh[row] for row in rows]
        ids = torch.zeros((len(rows), max(map(_columns, fresh))), dtype=torch.long)
        new = torch.zeros_like(ids, dtype=torch.bool)
        for i, tokens in enumerate(fresh):
            ids[i, : len(tokens)], new[i, : len(tokens)] = torch.tensor(tokens), True
        positions = torch.tensor([self._num_known[row] for row in rows])[:, None] + torch.arange(ids.shape[1])
        positions = positions.where(new, 0)
        self._end = up(int(positions.max()) + 1, MIN_KEYS)
        self._rows, self._new, positions, ids = (
            one.to(self._model.device) for one in (torch.tensor(rows), new, positions, ids)
        )
        self._at = self._rows[:, None].expand_as(self._new)[self._new], positions[self._new]
        later = torch.arange(self._end, device=positions.device) > positions[:, None, :, None]
        self._bias = torch.where(later, HIDDEN, 0.0).to(self._model.dtype)
        with attending(self._model, NAME, self):
            self._model(ids, position_ids=positions, use_cache=False)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Put a layer's new keys and values at their places, and let each query see those up to its own."""
        states = self._states or self._make(key, value)
        group = query.shape[1] // key.shape[1]
        key, value = (self._put(kept[layer], one) for kept, one in ((states.keys, key), (states.values, value)))
        if key.device.type != "cpu":  # its fast kernels take no mask together with fewer heads of keys
            key, value = (one.repeat_interleave(group, dim=1) for one in (key, value))
            return scaled_dot_product_attention(query, key, value, self._bias, scale=scaling)
        bias = self._bias.repeat(1, 1, group, 1)
        found, _ = attend(grouped(query, key.shape[1]), key, value, scaling, bias)
        return found.view(*query.shape[:-1], -1)

    def _put(self, kept: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
        """Put a layer's new keys or values among those kept; return all up to the last, of these rows."""
        rows, positions = self._at
        kept[rows, :, positions] = fresh.transpose(1, 2)[self._new]
        return kept[self._rows, :, : self._end]

    def _make(self, key: torch.Tensor, value: torch.Tensor) -> States:
        """Room for all, of the kind of a layer's `key` and `value`, and what is known in it."""
        layers, rows = self._model.config.num_hidden_layers, len(self._known)
        made = States(
            *(one.new_zeros(layers, rows, one.shape[-3], self._num_tokens, one.shape[-1]) for one in (key, value))
        )
        for i, parts in enumerate(self._known):
            row, at = made.row(i), 0
            for part in parts:
                end = at + part.keys.shape[-2]
                row.keys[..., at:end, :], row.values[..., at:end, :] = part.keys, part.values
                at = end
        self._states = made
        return made


def _columns(tokens: list[int]) -> int:
    """How many a row's tokens take up: those beyond are for nobody to read, with them no product has too few rows."""
    return up(max(MIN_ROWS, len(tokens)), ROWS_APART)


def attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any, *, scaling: float, **options: Any
) -> tuple[torch.Tensor, None]:
    """Transformers' attention interface: (rows, heads, tokens, width) of the tokens that are not known."""
    check_plain(options)
    return module.config.attended.attend(module.layer_idx, query, key, value, scaling).transpose(1, 2), None


AttentionInterface.register(NAME, attention)


class PrefixCache:
    """Computes the states of prompts with `model`, a causal LM's transformer; not for several threads at once."""

    def __init__(self, model: Any, *, max_bytes: int = 2**30) -> None:
        self._model = model
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[int, ...], States] = OrderedDict()
        self._num_bytes = 0
        self.num_cached_tokens = 0
        self.num_known: list[int] = []  # tokens found here of each prompt of the last batch

    def states(self, prompts: Sequence[Pieces]) -> tuple[States, torch.Tensor]:
        """States of a batch, each prompt's from the left, and the prompts' lengths, shape (batch).

        A prompt without a token is a ValueError.
        """
        rows = [[token for piece in prompt for token in piece] for prompt in prompts]
        if not all(rows):
            raise ValueError(f"prompt {rows.index([])} of the batch has no token")
        known = [self._known(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
        num_known = [sum(part.keys.shape[-2] for part in parts) for parts in known]
        batch = _Window(self._model, rows, known, num_known).states()
        for i, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            self._keep(row, prompt, num_known[i], batch.row(i))
        self.num_cached_tokens += sum(num_known)
        self.num_known = num_known
        return batch, torch.tensor(list(map(len, rows)), device=batch.keys.device)

    def _known(self, row: list[int], prompt: Pieces) -> list[States]:
        """States of the longest kept beginning, piece by piece; what is used was used last."""
        keys = []
        for end in accumulate(map(len, prompt)):
            if (key := tuple(row[:end])) not in self._kept:
                break
            keys.append(key)
        for key in reversed(keys):
            self._kept.move_to_end(key)
        return [self._kept[key] for key in keys]

    def _keep(self, row: list[int], prompt: Pieces, start: int, states: States) -> None:
        ends = [end for end in accumulate(map(len, prompt)) if end > start]
        for begin, end in zip([start, *ends], ends, strict=False):
            key = tuple(row[:end])
            if key in self._kept:  # computed twice in one batch
                continue
            part = states.tokens(slice(begin, end))
            part = States(part.keys.clone(), part.values.clone())
            self._kept[key] = part
            self._num_bytes += part.num_bytes
        while self._num_bytes > self._max_bytes:
            _, part = self._kept.popitem(last=False)
            self._num_bytes -= part.num_bytes
