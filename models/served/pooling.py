"""The PPM behind a vLLM pooling server: what many trees ask meanwhile is one request to /classify.

Section 3.2, PPM-augmented Q-value annotation. The server gives the head's logit; the tanh is applied by models/ppm.py.
For a server a request is more work than the candidates in it, whose prefixes it has cached: while two requests are
under way to a replica, what is asked of it waits, and goes there together when one of them has its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

from domains.protocol import Domain
from models import ppm
from models.batching import Batcher
from models.checkpoints import load_tokenizer
from models.served.endpoints import open_replicas
from models.served.replicas import SharedFailure
from models.tokens import encode_siblings
from rstar.protocols import ScorerError, UserError

PATH = "/classify"
MAX_BATCH = 65_536  # ids of a request, prefixes included: half a megabyte of JSON, which proxies let pass
AT_ONCE = 2  # requests under way to a replica

_Rows = list[list[int]]  # the ids of siblings, each with its prefix


class PoolingScorer:
    """A StepScorer that asks replicas of a vLLM server started with `--runner pooling`; `async with` it.

    `checkpoint` is the PPM's folder: tokenizer and head come from it, and the server must serve it (else a UserError).
    """

    def __init__(
        self, checkpoint: str | Path, urls: Sequence[str], *, domain: Domain, max_context: int = 4096, **options: Any
    ) -> None:
        """`options` are those of `models.served.replicas.Replicas`."""
        ppm.load_config(checkpoint)
        self._tokenizer = load_tokenizer(checkpoint)
        self._domain = domain
        self._max_context = max_context
        self._opening = open_replicas(str(checkpoint), urls, ScorerError, **options)
        self._lines: dict[str, Batcher[tuple[str, _Rows], list[float]]] = {}  # by the replica's url
        self._num_scored = self._num_tokens = 0

    async def __aenter__(self) -> Self:
        self._replicas, endpoint = await self._opening.__aenter__()
        self._model = endpoint.model
        self._max_context = min(self._max_context, endpoint.max_context or self._max_context)
        return self

    async def __aexit__(self, *details: Any) -> None:
        for line in self._lines.values():
            await line.close()
        await self._opening.__aexit__(*details)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """See `rstar.protocols.StepScorer`. What lies past the model's context is cut off."""
        if not candidates:
            return []
        text = self._domain.prompt(question) + "".join(prefix)
        pieces, rows = encode_siblings(self._tokenizer, text, candidates, self._domain, max_context=self._max_context)
        ids = [token for piece in pieces for token in piece]
        url = self._replicas.home(question)
        if url not in self._lines:
            self._lines[url] = Batcher(self._score, max_size=MAX_BATCH, at_once=AT_ONCE)
        siblings = [ids + row for row in rows]
        logits = await self._lines[url].ask((question, siblings), size=sum(map(len, siblings)))
        self._num_scored += len(rows)
        self._num_tokens += len(ids) + sum(map(len, rows))
        return ppm.squashed(logits)

    async def _score(self, asked: Sequence[tuple[str, _Rows]]) -> Sequence[list[float] | Exception]:
        """The logits of each question's siblings, in one request; one by one where the server does not take it."""
        try:
            return await self._asked(asked)
        except SharedFailure:
            return await asyncio.gather(*map(self._alone, asked))

    async def _alone(self, one: tuple[str, _Rows]) -> list[float] | Exception:
        try:
            [logits] = await self._asked([one])
        except (UserError, ScorerError) as error:
            return error
        return logits

    async def _asked(self, asked: Sequence[tuple[str, _Rows]]) -> list[list[float]]:
        rows = [row for _, siblings in asked for row in siblings]
        # Else vLLM answers with a sigmoid of the logit.
        body = {"model": self._model, "input": rows, "use_activation": False}
        question, _ = asked[0]
        answer = await self._replicas.post(PATH, body, question, shared=len(asked) > 1)
        try:
            data = sorted(answer["data"], key=lambda item: item["index"])
            logits = [float(logit) for item in data for logit in item["probs"]]
        except (KeyError, TypeError, ValueError):
            logits = []
        if len(logits) != len(rows):
            raise ScorerError(f"{PATH}: not one logit for each of {len(rows)} candidates: {str(answer)[:200]}")
        each = iter(logits)
        return [list(islice(each, len(siblings))) for _, siblings in asked]

    def metrics(self) -> dict[str, float]:
        """Candidates scored, tokens read, batches, attempts again, seconds in which a request was under way."""
        return {
            "num_scored": self._num_scored,
            "num_prompt_tokens": self._num_tokens,
            "num_batches": sum(line.num_batches for line in self._lines.values()),
            "num_retries": self._replicas.num_retries,
            "busy_seconds": self._replicas.busy_seconds,
        }
