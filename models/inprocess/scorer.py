"""The PPM in process: scores the candidates of all trees in flight in batches.

Section 3.2, PPM-augmented Q-value annotation. Only the last step of a node's prefix is computed, once
(models/inprocess/prefixes.py), and the siblings share its KV cache (models/inprocess/siblings.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from transformers import DynamicCache

from domains.protocol import Domain
from models import ppm
from models.batching import ThreadBatcher
from models.checkpoints import default_device, load_tokenizer
from models.inprocess import siblings
from models.inprocess.attention import MIN_KEYS, ROW_MULTIPLE, attending, check_window, padded, round_up
from models.inprocess.prefixes import Pieces, PrefixCache
from models.inprocess.siblings import Prompts
from models.tokens import encode_siblings
from rstar.protocols import ScorerError

SCORE_DIGITS = 4  # further digits depend on the batch where kernels sum by shape


@dataclass(frozen=True, slots=True)
class _Request:
    prefix: Pieces
    candidates: list[list[int]]


def group_by_size(requests: Sequence[_Request]) -> list[list[int]]:
    """Group requests with 1, 2, 3 to 4, 5 to 8, ... candidates: each prompt of a batch is padded to the largest."""
    groups: dict[int, list[int]] = {}
    for at, request in enumerate(requests):
        groups.setdefault((len(request.candidates) - 1).bit_length(), []).append(at)
    return list(groups.values())


class TransformersScorer:
    """A StepScorer that runs a PPM checkpoint on this machine; `async with` it."""

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        domain: Domain,
        max_batch: int = 256,
        max_context: int = 4096,
        device: str = "",
        threads: int = 0,
    ) -> None:
        self._domain = domain
        self._device = device or default_device()
        self._tokenizer = load_tokenizer(checkpoint)
        self._model = ppm.load_ppm(checkpoint, device=self._device).eval()
        self._prefixes = PrefixCache(self._model.base_model)
        self._max_context = min(max_context, getattr(self._model.config, "max_position_embeddings", max_context))
        check_window(checkpoint, self._model.config, "model.max_context", self._max_context)
        self._batcher = ThreadBatcher(self._score, max_size=max_batch, threads=threads)
        self._num_scored = self._num_tokens = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._batcher.close()

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """See `rstar.protocols.StepScorer`. Texts are cut off at the model's context."""
        if not candidates:
            return []
        text = self._domain.prompt(question) + "".join(prefix)
        request = _Request(
            *encode_siblings(self._tokenizer, text, candidates, self._domain, max_context=self._max_context)
        )
        return await self._batcher.ask(request, size=len(candidates), length=sum(map(len, request.prefix)))

    def metrics(self) -> dict[str, float]:
        """Return totals; `num_cached_tokens` are the prompt tokens found in the prefix cache."""
        return {
            "num_scored": self._num_scored,
            "num_prompt_tokens": self._num_tokens,
            "num_cached_tokens": self._prefixes.num_cached_tokens,
            "num_batches": self._batcher.num_batches,
            "busy_seconds": self._batcher.busy_seconds,
        }

    def _score(self, requests: Sequence[_Request]) -> list[list[float]]:
        answers: dict[int, list[float]] = {}
        try:
            for group in group_by_size(requests):
                scores = self._score_batch([requests[at] for at in group])
                answers |= zip(group, scores, strict=True)
        except (RuntimeError, ValueError) as error:
            raise ScorerError(f"the PPM's engine failed on {len(requests)} requests: {error}") from error
        return [answers[at] for at in range(len(requests))]

    @torch.inference_mode()
    def _score_batch(self, requests: Sequence[_Request]) -> list[list[float]]:
        states, lengths = self._prefixes.states([request.prefix for request in requests])
        prompts = Prompts.of(states, lengths, [len(request.candidates) for request in requests])
        rows = [row for request in requests for row in request.candidates]
        ids, mask = self._pad(rows)
        positions = lengths[prompts.node, None] + torch.arange(ids.shape[1], device=self._device)
        with attending(self._model, siblings.NAME, prompts):
            output = self._model.base_model(ids, position_ids=positions, past_key_values=DynamicCache())
        ends = padded(torch.arange(len(rows), device=self._device)), padded(mask.sum(-1) - 1)
        logits = ppm.logits(self._model, output.last_hidden_state[ends])
        values = [round(score, SCORE_DIGITS) for score in ppm.scores(logits).tolist()]
        self._num_scored += len(rows)
        self._num_tokens += sum(map(len, rows)) + sum(len(piece) for request in requests for piece in request.prefix)
        answers, at = [], 0
        for request in requests:
            answers.append(values[at : at + len(request.candidates)])
            at += len(request.candidates)
        return answers

    def _pad(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask, padded on the right."""
        shape = len(rows), round_up(max(MIN_KEYS, *map(len, rows)), ROW_MULTIPLE)
        ids = torch.full(shape, self._tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = torch.tensor(row), 1
        return ids.to(self._device), mask.to(self._device)
