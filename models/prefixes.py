"""Keys and values of prompts that trees share: a node's prompt is its parent's and one step more.

Kept by piece (the question, each step), so that an expansion computes its last step alone. Least recently used pieces
go first; what is gone is computed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from transformers import DynamicCache

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
    """Computes the states of prompts with `model`, a causal LM's transformer; not for several threads at once."""

    def __init__(self, model: Any, *, max_bytes: int = 2**30) -> None:
        self._model = model
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[int, ...], States] = OrderedDict()
        self._num_bytes = 0
        self.num_cached_tokens = 0
        self.num_known: list[int] = []  # tokens found here of each prompt of the last batch

    def states(self, prompts: Sequence[Pieces]) -> tuple[States, torch.Tensor]:
        """States of a batch, padded on the left to the longest prompt, and its mask of shape (batch, tokens)."""
        rows = [[token for piece in prompt for token in piece] for prompt in prompts]
        known = [self._known(row, prompt) for row, prompt in zip(rows, prompts, strict=True)]
        num_known = [sum(part.keys.shape[-2] for part in parts) for parts in known]
        new = self._compute(rows, known, num_known)
        longest = max(map(len, rows))
        batch = _empty(new, len(rows), longest)
        mask = torch.zeros((len(rows), longest), dtype=torch.long, device=new.keys.device)
        for i, (row, parts, prompt) in enumerate(zip(rows, known, prompts, strict=True)):
            fresh = new.row(i).tokens(slice(new.keys.shape[-2] - len(row) + num_known[i], None))
            _fill(batch.row(i), [*parts, fresh])
            mask[i, longest - len(row) :] = 1
            self._keep(row, prompt, num_known[i], fresh)
        self.num_cached_tokens += sum(num_known)
        self.num_known = num_known
        return batch, mask

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

    def _compute(self, rows: list[list[int]], known: list[list[States]], num_known: list[int]) -> States:
        """States of the tokens that are not known, aligned on the right."""
        device = self._model.device
        before = max(num_known)
        length = max(1, *(len(row) - count for row, count in zip(rows, num_known, strict=True)))
        cache = DynamicCache()
        mask = torch.zeros((len(rows), before + length), dtype=torch.long, device=device)
        ids = torch.zeros((len(rows), length), dtype=torch.long, device=device)
        if before:
            window = _empty(next(part for parts in known for part in parts), len(rows), before)
            for i, parts in enumerate(known):
                _fill(window.row(i), parts)
            for layer, (keys, values) in enumerate(zip(window.keys, window.values, strict=True)):
                cache.update(keys, values, layer)
        for i, (row, count) in enumerate(zip(rows, num_known, strict=True)):
            mask[i, before - count : before] = 1
            if len(row) > count:
                ids[i, count - len(row) :] = torch.tensor(row[count:])
                mask[i, count - len(row) :] = 1
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, before:]
        self._model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True)
        return States(
            *(
                torch.stack([getattr(layer, kind)[:, :, before:] for layer in cache.layers])
                for kind in ("keys", "values")
            )
        )

    def _keep(self, row: list[int], prompt: Pieces, start: int, fresh: States) -> None:
        ends = [end for end in accumulate(map(len, prompt)) if end > start]
        for begin, end in zip([start, *ends], ends, strict=False):
            key = tuple(row[:end])
            if key in self._kept:  # computed twice in one batch
                continue
            part = fresh.tokens(slice(begin - start, end - start))
            part = States(part.keys.clone(), part.values.clone())
            self._kept[key] = part
            self._num_bytes += part.num_bytes
        while self._num_bytes > self._max_bytes:
            _, part = self._kept.popitem(last=False)
            self._num_bytes -= part.num_bytes


def _empty(like: States, num_rows: int, num_tokens: int) -> States:
    """Zero states for a batch of rows, of the kind of `like`."""
    shapes = [(one.shape[0], num_rows, one.shape[-3], num_tokens, one.shape[-1]) for one in (like.keys, like.values)]
    return States(like.keys.new_zeros(shapes[0]), like.values.new_zeros(shapes[1]))


def _fill(row: States, parts: list[States]) -> None:
    """Put a row's parts one after another at its right end."""
    end = row.keys.shape[-2]
    for part in reversed(parts):
        start = end - part.keys.shape[-2]
        row.keys[..., start:end, :], row.values[..., start:end, :] = part.keys, part.values
        end = start
