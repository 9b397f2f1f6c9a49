"""Sampling noise that belongs to a request, not to a stream shared by a batch.

One uniform number a (request seed, candidate, position) decides a token by the inverse of the distribution, so that a
candidate does not depend on which other requests happen to be in its batch.
"""

from __future__ import annotations

import numpy as np
import torch

from models.inprocess.siblings import places


def noise(seed: int, num_candidates: int, num_positions: int) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (num_candidates, num_positions), by a counter-based generator."""
    streams = [np.random.Philox(key=[seed & (2**64 - 1), candidate]) for candidate in range(num_candidates)]
    return np.stack([np.random.Generator(stream).random(num_positions) for stream in streams])


def choose(
    logits: torch.Tensor, row: torch.Tensor, uniforms: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each candidate, and its log-probability under the policy at temperature 1.

    `logits` has shape (rows, vocabulary); candidates, each with its `row` and its uniform number, may share rows.
    Temperature 0 takes the likeliest token.
    """
    logprobs = logits.float().log_softmax(-1)
    if temperature == 0:
        chosen = logprobs.argmax(-1)[row]
    else:
        tempered = logprobs if temperature == 1 else (logprobs / temperature).log_softmax(-1)
        cumulative = tempered.exp().cumsum(-1)
        place = places(row)
        targets = cumulative.new_zeros(len(logits), int(place.max()) + 1)
        targets[row, place] = uniforms.to(cumulative) * cumulative[row, -1]
        chosen = torch.searchsorted(cumulative, targets, right=True)[row, place]
        chosen = chosen.clamp_(max=logits.shape[-1] - 1)
    return chosen, logprobs[row, chosen]
