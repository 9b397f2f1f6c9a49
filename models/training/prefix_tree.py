"""Prefix trees of tokens: texts with common prefixes, laid out so that a transformer reads each prefix once.

The texts of a problem's preference pairs come from one search tree. They share the question and many steps, so each
token occurs more than four times in them. In a prefix tree a token attends to its ancestors only, and its position is
its depth.
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
    """Tokens, each with the place of the token before it; parents come before their children."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    _places: dict[tuple[int, int], int] = field(default_factory=dict)  # (parent, token) -> place

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, text: Sequence[int]) -> int:
        """Add a text; return the place of its last token."""
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
        """Return a model's inputs: ids and positions of shape (1, length), and `attention_mask`.

        The mask has shape (1, 1, length, length) and is added to the attention scores.
        """
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
