"""The PPM behind a server: what many trees ask while it works is one request, and each gets its own scores."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import pooling, ppm
from models.checkpoints import load_tokenizer
from models.pooling import PATH, PoolingScorer
from models.tokens import encode
from rstar.prompts import render_prompt
from rstar.protocols import ScorerError

Starter = Callable[..., Any]
QUESTIONS = [f"What is {number} + {number}?" for number in range(20)]
STEPS = ["<code>\n# Add.\nx = 1\n<end_of_step>\n", "<code>\n# Add them all up.\nprint(2)\n<end_of_code>\n"]


@pytest.fixture(scope="module")
def checkpoint(small_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, tokenizer = tmp_path_factory.mktemp("ppm"), load_tokenizer(small_policy)
    ppm.from_policy(small_policy, pad_token_id=tokenizer.pad_token_id, device="cpu").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def logit(row: list[int]) -> float:
    """What the server says of a row: each row of these tests gets a value of its own."""
    return sum((at + 1) * token for at, token in enumerate(row)) % 1009 / 500 - 1


class Served:
    """Behaves as a PPM's server that holds its first request until it is told to go on."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self.go_on = checkpoint, threading.Event()
        self.asked: list[list[list[int]]] = []

    def __call__(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != PATH:
            return 200, {"data": [{"id": str(self.checkpoint), "owned_by": "vllm", "max_model_len": 512}]}
        self.asked.append(body["input"])
        if len(self.asked) == 1:
            self.go_on.wait(10)
        return 200, {"data": [{"index": at, "probs": [logit(row)]} for at, row in enumerate(body["input"])][::-1]}

    async def first_is_asked(self) -> None:
        while not self.asked:
            await asyncio.sleep(0.01)


async def asked(scorer: PoolingScorer, served: Served) -> list[asyncio.Task[Any]]:
    """Ask about the first question, then, while the server is at it, about all others."""
    tasks = [asyncio.create_task(scorer.score(QUESTIONS[0], [], STEPS))]
    await served.first_is_asked()
    tasks += [asyncio.create_task(scorer.score(question, [], STEPS)) for question in QUESTIONS[1:]]
    await asyncio.sleep(0.05)
    return tasks


async def test_what_trees_ask_while_the_server_works_is_its_next_request(
    checkpoint: Path, http_server: Starter
) -> None:
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url]) as scorer:
        tasks = await asked(scorer, served)
        served.go_on.set()
        found = await asyncio.gather(*tasks)
        metrics = scorer.metrics()
    assert list(map(len, served.asked)) == [2, 38]
    assert (metrics["num_batches"], metrics["num_scored"]) == (2, 40)
    tokenizer = load_tokenizer(checkpoint)
    for question, scores in zip(QUESTIONS, found, strict=True):
        rows = [encode(tokenizer, render_prompt(question) + step) for step in STEPS]
        assert scores == pytest.approx([math.tanh(logit(row)) for row in rows])


async def test_a_request_holds_no_more_candidates_than_it_may(
    checkpoint: Path, http_server: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooling, "MAX_BATCH", 16)
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url]) as scorer:
        tasks = await asked(scorer, served)
        served.go_on.set()
        await asyncio.gather(*tasks)
    assert list(map(len, served.asked)) == [2, 16, 16, 6]


async def test_who_goes_away_is_not_asked_about_and_takes_nobody_along(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url]) as scorer:
        first, second, *others = await asked(scorer, served)
        first.cancel()  # is being asked about
        second.cancel()
        served.go_on.set()
        assert all(len(scores) == 2 for scores in await asyncio.gather(*others))
    assert list(map(len, served.asked)) == [2, 36]


async def test_each_replica_has_a_line_of_its_own(checkpoint: Path, http_server: Starter) -> None:
    slow, quick = Served(checkpoint), Served(checkpoint)
    quick.go_on.set()
    urls = [http_server(served).url for served in (slow, quick)]
    async with PoolingScorer(checkpoint, urls) as scorer:
        tasks = [asyncio.create_task(scorer.score(question, [], STEPS)) for question in QUESTIONS * 2]
        done, waiting = await asyncio.wait(tasks, timeout=2)
        assert done and waiting  # nobody waits for the slow one who did not ask it
        slow.go_on.set()
        await asyncio.gather(*waiting)

    def prompts(served: Served) -> set[tuple[int, ...]]:
        return {tuple(row) for rows in served.asked for row in rows}

    assert not prompts(slow) & prompts(quick)
    assert sum(map(len, slow.asked)) + sum(map(len, quick.asked)) == len(QUESTIONS) * 2 * len(STEPS)


async def test_an_answer_that_lacks_logits_is_one_line(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)

    def short(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, {"data": [{"index": 0, "probs": [0.5]}]}) if path == PATH else served(path, body)

    async with PoolingScorer(checkpoint, [http_server(short).url]) as scorer:
        with pytest.raises(ScorerError, match="not one logit for each of 2 candidates"):
            await scorer.score(QUESTIONS[0], [], STEPS)
