"""Sampling noise that belongs to a request, not to a stream shared by a batch.

One uniform number a (request seed, candidate, position) decides a token by the inverse of the distribution, so that a
candidate does not depend on which other requests happen to be in its batch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from transformers import LogitsProcessor, StoppingCriteria


def noise(seed: int, num_candidates: int, num_positions: int) -> np.ndarray:
    """Uniform numbers in [0, 1), shape (num_candidates, num_positions), by a counter-based generator."""
    streams = [np.random.Philox(key=[seed & (2**64 - 1), candidate]) for candidate in range(num_candidates)]
    return np.stack([np.random.Generator(stream).random(num_positions) for stream in streams])


class SeededSampler(LogitsProcessor):
    """Turns logits into a choice: all but the sampled token become minus infinity, so that greedy decoding takes it.

    Temperature 0 takes the likeliest token. `logprobs` (rows) sums the log-probability of what was chosen, under the
    policy at temperature 1.
    """

    def __init__(self, uniforms: np.ndarray, temperature: float, prompt_length: int, stop_ids: Sequence[int]) -> None:
        self.uniforms = torch.from_numpy(uniforms)
        self.temperature = temperature
        self.prompt_length = prompt_length
        self.stop_ids = torch.tensor(list(stop_ids))
        self.logprobs = torch.zeros(len(uniforms))
        self.done = torch.zeros(len(uniforms), dtype=torch.bool)

    def only(self, rows: torch.Tensor) -> SeededSampler:
        """The same sampler for some of the rows, chosen by a mask."""
        kept = copy.copy(self)
        kept.uniforms, kept.logprobs, kept.done = self.uniforms[rows], self.logprobs[rows], self.done[rows]
        return kept

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        position = input_ids.shape[1] - self.prompt_length
        logprobs = scores.float().log_softmax(-1)
        if self.temperature == 0:
            chosen = logprobs.argmax(-1)
        else:
            tempered = logprobs if self.temperature == 1 else (logprobs / self.temperature).log_softmax(-1)
            cumulative = tempered.exp().cumsum(-1)
            target = self.uniforms[:, position].to(cumulative) * cumulative[:, -1]
            chosen = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
            chosen = chosen.clamp_(max=scores.shape[-1] - 1)
        picked = logprobs.gather(1, chosen[:, None])[:, 0].cpu()
        self.logprobs += torch.where(self.done, 0.0, picked)
        self.done |= torch.isin(chosen.cpu(), self.stop_ids)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)


class MostDone(StoppingCriteria):
    """Stops a batch of any size once `share` of its rows are done; a few rows are not worth a new start."""

    def __init__(self, sampler: SeededSampler, *, share: float = 0.6, few: int = 16) -> None:
        self.sampler = sampler
        self.share = share if len(sampler.done) > few else 1.0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        stop = bool(self.sampler.done.float().mean() >= self.share)
        return torch.full((len(input_ids),), stop, dtype=torch.bool, device=input_ids.device)
