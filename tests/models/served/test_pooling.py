"""The PPM behind a server: the requests of many trees are sent together, and each gets its own scores."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from domains.mathematics.domain import DOMAIN
from models import ppm
from models.checkpoints import load_tokenizer
from models.served import pooling
from models.served.pooling import AT_ONCE, PATH, PoolingScorer
from models.tokens import encode
from rstar.protocols import ScorerError, UserError

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
    """Return the server's logit of a row; it differs between all rows of these tests."""
    return sum((at + 1) * token for at, token in enumerate(row)) % 1009 / 500 - 1


class Served:
    """A PPM's server that holds its first two requests until `go_on` is set."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint, self.go_on = checkpoint, threading.Event()
        self.asked: list[list[list[int]]] = []
        self.refuses: tuple[list[int], int] | None = None  # a row, and the status for requests with that row

    def __call__(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path != PATH:
            return 200, {"data": [{"id": str(self.checkpoint), "owned_by": "vllm", "max_model_len": 512}]}
        self.asked.append(body["input"])
        if len(self.asked) <= AT_ONCE:
            self.go_on.wait(10)
        if self.refuses and self.refuses[0] in body["input"]:
            return self.refuses[1], {"error": {"message": "a bad row"}}
        return 200, {"data": [{"index": at, "probs": [logit(row)]} for at, row in enumerate(body["input"])][::-1]}


def rows_of(checkpoint: Path, question: str) -> list[list[int]]:
    tokenizer = load_tokenizer(checkpoint)
    return [encode(tokenizer, DOMAIN.prompt(question) + step, DOMAIN) for step in STEPS]


async def asked(scorer: PoolingScorer, served: Served) -> list[asyncio.Task[Any]]:
    """Ask about two questions and, while the server works on them, about all others."""
    tasks = []
    for question in QUESTIONS[:AT_ONCE]:
        tasks.append(asyncio.create_task(scorer.score(question, [], STEPS)))
        while len(served.asked) < len(tasks):
            await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(scorer.score(question, [], STEPS)) for question in QUESTIONS[AT_ONCE:]]
    await asyncio.sleep(0.05)
    return tasks


async def test_what_trees_ask_while_the_server_works_is_sent_together(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url], domain=DOMAIN) as scorer:
        tasks = await asked(scorer, served)
        served.go_on.set()
        found = await asyncio.gather(*tasks)
        metrics = scorer.metrics()
    assert list(map(len, served.asked)) == [2, 2, 36]
    assert (metrics["num_batches"], metrics["num_scored"]) == (3, 40)
    for question, scores in zip(QUESTIONS, found, strict=True):
        assert scores == pytest.approx([math.tanh(logit(row)) for row in rows_of(checkpoint, question)])


async def test_a_request_has_at_most_the_allowed_tokens(
    checkpoint: Path, http_server: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 8 * max(len(row) for question in QUESTIONS for row in rows_of(checkpoint, question))
    monkeypatch.setattr(pooling, "MAX_BATCH", most)
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url], domain=DOMAIN) as scorer:
        tasks = await asked(scorer, served)
        served.go_on.set()
        await asyncio.gather(*tasks)
    assert max(sum(map(len, rows)) for rows in served.asked) <= most
    assert sum(map(len, served.asked)) == 40 and 6 <= len(served.asked) <= 8


async def test_a_cancelled_request_is_not_sent_and_the_others_are(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url], domain=DOMAIN) as scorer:
        first, second, third, *others = await asked(scorer, served)
        first.cancel()  # its request is in flight
        third.cancel()
        served.go_on.set()
        assert all(len(scores) == 2 for scores in await asyncio.gather(second, *others))
    assert list(map(len, served.asked)) == [2, 2, 34]


@pytest.mark.parametrize(("status", "error"), [(500, ScorerError), (400, UserError)])
async def test_only_the_request_that_the_server_refuses_fails(
    checkpoint: Path, http_server: Starter, status: int, error: type[Exception]
) -> None:
    served = Served(checkpoint)
    served.refuses = rows_of(checkpoint, QUESTIONS[7])[0], status
    # If all others were answered before the server broke, only patience ends the request.
    url = http_server(served).url
    async with PoolingScorer(checkpoint, [url], domain=DOMAIN, patience_seconds=30) as scorer:
        tasks = await asked(scorer, served)
        served.go_on.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, one in enumerate(found) if not isinstance(one, list)] == [7]
    assert isinstance(found[7], error) and "a bad row" in str(found[7])


async def test_requests_that_still_wait_at_the_end_are_cancelled(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)
    async with PoolingScorer(checkpoint, [http_server(served).url], domain=DOMAIN) as scorer:
        tasks = await asked(scorer, served)
    _, waiting = await asyncio.wait(tasks, timeout=5)
    assert not waiting and all(task.cancelled() for task in tasks)
    served.go_on.set()


async def test_each_replica_has_its_own_batches(checkpoint: Path, http_server: Starter) -> None:
    slow, quick = Served(checkpoint), Served(checkpoint)
    quick.go_on.set()
    urls = [http_server(served).url for served in (slow, quick)]
    async with PoolingScorer(checkpoint, urls, domain=DOMAIN) as scorer:
        tasks = [asyncio.create_task(scorer.score(question, [], STEPS)) for question in QUESTIONS * 2]
        done, waiting = await asyncio.wait(tasks, timeout=2)
        assert done and waiting  # requests to the quick replica do not wait for the slow one
        slow.go_on.set()
        await asyncio.gather(*waiting)

    def prompts(served: Served) -> set[tuple[int, ...]]:
        return {tuple(row) for rows in served.asked for row in rows}

    assert not prompts(slow) & prompts(quick)
    assert sum(map(len, slow.asked)) + sum(map(len, quick.asked)) == len(QUESTIONS) * 2 * len(STEPS)


async def test_an_answer_without_all_logits_is_an_error_of_one_line(checkpoint: Path, http_server: Starter) -> None:
    served = Served(checkpoint)

    def short(path: str, body: dict[str, Any]) -> tuple[int, Any]:
        return (200, {"data": [{"index": 0, "probs": [0.5]}]}) if path == PATH else served(path, body)

    async with PoolingScorer(checkpoint, [http_server(short).url], domain=DOMAIN) as scorer:
        with pytest.raises(ScorerError, match="not one logit for each of 2 candidates"):
            await scorer.score(QUESTIONS[0], [], STEPS)
