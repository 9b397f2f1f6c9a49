"""The PPM behind a vLLM pooling server: the requests of many trees are sent to /classify together.

Section 3.2, PPM-augmented Q-value annotation. The server returns the head's logit; models/ppm.py applies the tanh.
Handling a request costs a server more than the candidates in it, whose prefixes it has cached. So each replica gets two
requests at a time; what is asked meanwhile is sent together when one of them is answered.
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
MAX_BATCH = 65_536  # ids in a request, prefixes included: half a megabyte of JSON, which proxies accept
AT_ONCE = 2  # requests to a replica

_Rows = list[list[int]]  # the ids of siblings, each with its prefix


class PoolingScorer:
    """A StepScorer that asks the replicas of a vLLM server started with `--runner pooling`; `async with` it.

    `checkpoint` is the PPM's folder: its tokenizer is used, and the server must serve it (otherwise UserError).
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
        self._batchers: dict[str, Batcher[tuple[str, _Rows], list[float]]] = {}  # by the replica's url
        self._num_scored = self._num_tokens = 0

    async def __aenter__(self) -> Self:
        self._replicas, endpoint = await self._opening.__aenter__()
        self._model = endpoint.model
        self._max_context = min(self._max_context, endpoint.max_context or self._max_context)
        return self

    async def __aexit__(self, *details: Any) -> None:
        for batcher in self._batchers.values():
            await batcher.close()
        await self._opening.__aexit__(*details)

    async def score(self, question: str, prefix: Sequence[str], candidates: Sequence[str]) -> Sequence[float]:
        """See `rstar.protocols.StepScorer`. Texts are cut off at the model's context."""
        if not candidates:
            return []
        text = self._domain.prompt(question) + "".join(prefix)
        pieces, rows = encode_siblings(self._tokenizer, text, candidates, self._domain, max_context=self._max_context)
        ids = [token for piece in pieces for token in piece]
        url = self._replicas.home(question)
        if url not in self._batchers:
            self._batchers[url] = Batcher(self._score, max_size=MAX_BATCH, at_once=AT_ONCE)
        siblings = [ids + row for row in rows]
        logits = await self._batchers[url].ask((question, siblings), size=sum(map(len, siblings)))
        self._num_scored += len(rows)
        self._num_tokens += len(ids) + sum(map(len, rows))
        return ppm.squashed(logits)

    def metrics(self) -> dict[str, float]:
        """Return totals; `busy_seconds` is the time with at least one request in flight."""
        return {
            "num_scored": self._num_scored,
            "num_prompt_tokens": self._num_tokens,
            "num_batches": sum(batcher.num_batches for batcher in self._batchers.values()),
            "num_retries": self._replicas.num_retries,
            "busy_seconds": self._replicas.busy_seconds,
        }

    async def _score(self, batch: Sequence[tuple[str, _Rows]]) -> Sequence[list[float] | Exception]:
        """Return the logits of each question's siblings: in one request, or one by one if the server refuses that."""
        try:
            return await self._ask(batch)
        except SharedFailure:
            return await asyncio.gather(*map(self._ask_alone, batch))

    async def _ask_alone(self, one: tuple[str, _Rows]) -> list[float] | Exception:
        try:
            [logits] = await self._ask([one])
        except (UserError, ScorerError) as error:
            return error
        return logits

    async def _ask(self, batch: Sequence[tuple[str, _Rows]]) -> list[list[float]]:
        rows = [row for _, siblings in batch for row in siblings]
        # By default vLLM would return the sigmoid of the logit.
        body = {"model": self._model, "input": rows, "use_activation": False}
        question, _ = batch[0]
        answer = await self._replicas.post(PATH, body, question, shared=len(batch) > 1)
        try:
            data = sorted(answer["data"], key=lambda item: item["index"])
            logits = [float(logit) for item in data for logit in item["probs"]]
        except (KeyError, TypeError, ValueError):
            logits = []
        if len(logits) != len(rows):
            raise ScorerError(f"{PATH}: not one logit for each of {len(rows)} candidates: {str(answer)[:200]}")
        each = iter(logits)
        return [list(islice(each, len(siblings))) for _, siblings in batch]
