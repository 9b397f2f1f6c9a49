"""The PPM in process: scores the candidates of all trees in flight in batches.

Section 3.2, PPM-augmented Q-value annotation. The prefix of a node is computed once and its KV cache repeated for the
siblings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from transformers import DynamicCache

from models import ppm
from models.batching import Batcher
from models.checkpoints import default_device, load_tokenizer
from models.tokens import encode
from rstar.prompts import render_prompt
from rstar.protocols import ScorerError


@dataclass(frozen=True, slots=True)
class _Request:
    prefix: list[int]
    candidates: list[list[int]]


class TransformersScorer:
    """A StepScorer that runs a PPM checkpoint on this machine; `async with` it."""

    def __init__(
        self, checkpoint: str | Path, *, max_batch: int = 256, max_context: int = 4096, device: str = ""
    ) -> None:
        self._device = device or default_device()
        self._tokenizer = load_tokenizer(checkpoint)
        self._model = ppm.load_ppm(checkpoint, device=self._device).eval()
        self._max_context = min(max_context, getattr(self._model.config, "max_position_embeddings", max_context))
        self._batcher = Batcher(self._score, max_size=max_batch)
        self._num_scored = self._num_tokens = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._batcher.close()

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """See `rstar.protocols.StepScorer`. What lies past the model's context is cut off."""
        if not candidates:
            return []
        ids = self._ids(render_prompt(question) + "".join(prefix))[: self._max_context - 1]
        room = self._max_context - len(ids)
        request = _Request(ids, [self._ids(text)[:room] or [self._tokenizer.pad_token_id] for text in candidates])
        return await self._batcher.ask(request, size=len(candidates), length=len(ids))

    def metrics(self) -> dict[str, float]:
        """Candidates scored, tokens read, batches, and seconds in which the model was busy."""
        return {
            "num_scored": self._num_scored,
            "num_prompt_tokens": self._num_tokens,
            "num_batches": self._batcher.num_batches,
            "busy_seconds": self._batcher.busy_seconds,
        }

    def _ids(self, text: str) -> list[int]:
        return encode(self._tokenizer, text)

    def _score(self, requests: Sequence[_Request]) -> list[list[float]]:
        try:
            return self._score_batch(requests)
        except (RuntimeError, ValueError) as error:
            raise ScorerError(f"the PPM's engine failed on {len(requests)} requests: {error}") from error

    @torch.inference_mode()
    def _score_batch(self, requests: Sequence[_Request]) -> list[list[float]]:
        prefix, prefix_mask = self._pad([request.prefix for request in requests], "left")
        cache = DynamicCache(config=self._model.config)
        base = self._model.base_model
        positions = (prefix_mask.cumsum(-1) - 1).clamp(min=0)
        base(prefix, attention_mask=prefix_mask, position_ids=positions, past_key_values=cache, use_cache=True)
        owner = torch.tensor([i for i, request in enumerate(requests) for _ in request.candidates], device=self._device)
        cache.reorder_cache(owner)
        rows = [row for request in requests for row in request.candidates]
        ids, mask = self._pad(rows, "right")
        positions = prefix_mask.sum(-1)[owner, None] + torch.arange(ids.shape[1], device=self._device)
        full_mask = torch.cat([prefix_mask[owner], mask], dim=1)
        hidden = base(
            ids, attention_mask=full_mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        values = ppm.head(self._model, hidden[torch.arange(len(rows), device=self._device), mask.sum(-1) - 1]).tolist()
        self._num_scored += len(rows)
        self._num_tokens += sum(map(len, rows)) + sum(len(request.prefix) for request in requests)
        answers, at = [], 0
        for request in requests:
            answers.append(values[at : at + len(request.candidates)])
            at += len(request.candidates)
        return answers

    def _pad(self, rows: Sequence[list[int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
        length = max(map(len, rows))
        ids = torch.full((len(rows), length), self._tokenizer.pad_token_id, dtype=torch.long)
        mask = torch.zeros((len(rows), length), dtype=torch.long)
        for i, row in enumerate(rows):
            at = slice(length - len(row), length) if side == "left" else slice(0, len(row))
            ids[i, at], mask[i, at] = torch.tensor(row), 1
        return ids.to(self._device), mask.to(self._device)
