"""Token tries: texts that begin alike are laid out so that a transformer reads their common beginnings once.

The steps of a search tree share the question and their prefixes, so that the texts of a problem's preference pairs hold
each token four times over and more. A token sees its ancestors alone, and its position is its depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from models.inprocess.attention import MASKED

ROOT = -1


@dataclass(slots=True)
class PrefixTree:
    """Tokens, each with the place of the one before it in its text; parents come before their children."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _places: dict[tuple[int, int], int] = field(default_factory=dict)  # (parent, token) -> place

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, text: Sequence[int]) -> int:
        """Lay out a text; return the place of its last token."""
        at = ROOT
        for token in text:
            place = self._places.setdefault((at, token), len(self.tokens))
            if place == len(self.tokens):
                self.tokens.append(token)
                self.parents.append(at)
            at = place
        return at

    def num_new(self, text: Sequence[int]) -> int:
        """Count the tokens that `text` would add."""
        at = ROOT
        for known, token in enumerate(text):
            at = self._places.get((at, token), ROOT)
            if at == ROOT:
                return len(text) - known
        return 0

    def inputs(self) -> dict[str, torch.Tensor]:
        """A model's inputs, shapes (1, length), and `attention_mask`, what scores are added: (1, 1, length, length)."""
        sees = np.eye(len(self), dtype=bool)
        depth = np.zeros(len(self), dtype=np.int64)
        for place, parent in enumerate(self.parents):
            if parent != ROOT:
                sees[place] |= sees[parent]
                depth[place] = depth[parent] + 1
        return {
            "input_ids": torch.tensor([self.tokens]),
            "position_ids": torch.from_numpy(depth)[None],
            "attention_mask": torch.where(torch.from_numpy(sees), 0.0, MASKED)[None, None],
        }
