"""Sampling whose random numbers belong to a request, not to a stream that a batch shares.

One uniform number per (request seed, candidate, position) picks a token by the inverse of the cumulative distribution,
so a candidate does not depend on the other requests in its batch.
"""

from __future__ import annotations

import numpy as np
import torch

from models.inprocess.siblings import places


def noise(seed: int, num_candidates: int, num_positions: int) -> np.ndarray:
    """Return uniform numbers in [0, 1) from a counter-based generator, shape (num_candidates, num_positions)."""
    streams = [np.random.Philox(key=[seed & (2**64 - 1), candidate]) for candidate in range(num_candidates)]
    return np.stack([np.random.Generator(stream).random(num_positions) for stream in streams])


def choose(
    logits: torch.Tensor, row: torch.Tensor, uniforms: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the next token of each candidate, and its log-probability under the policy at temperature 1.

    `logits` has shape (rows, vocabulary). `row` and `uniforms` have one entry per candidate; candidates can share a
    row. Temperature 0 takes the most likely token.
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
