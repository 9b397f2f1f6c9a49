"""An answer depends neither on the other requests in its batch nor on what is cached of its prompt."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from domains.mathematics.domain import DOMAIN
from models import batching, ppm
from models.checkpoints import load_policy, load_tokenizer
from models.inprocess import policy as engine
from models.inprocess import scorer
from models.inprocess.policy import TransformersPolicy
from models.inprocess.prefixes import PrefixCache
from models.inprocess.scorer import TransformersScorer

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="other kernels sum in other orders"
)
NUM_REQUESTS = 25
STEP = "\n# Ana has {} nuts, and Ben gives her {}\nana = {}\n<end_of_step>"


@pytest.fixture(autouse=True, params=[1, 2], ids=["one_thread", "two_threads"])
def _all_digits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(engine, "LOGPROB_DIGITS", 12)
    monkeypatch.setattr(scorer, "SCORE_DIGITS", 12)
    monkeypatch.setattr(batching, "NUM_THREADS", request.param)  # the engines'
    threads = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small_ppm(small_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPM with the weights of `small_policy` and a random head."""
    path = tmp_path_factory.mktemp("ppm")
    tokenizer = load_tokenizer(small_policy)
    model = ppm.from_policy(small_policy, pad_token_id=tokenizer.pad_token_id, device="cpu")
    torch.nn.init.normal_(model.score.weight, std=0.05, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def requests() -> list[tuple[str, list[str]]]:
    rng = random.Random(7)
    steps = [[STEP.format(*rng.sample(range(100), 3)) for _ in range(rng.randrange(6))] for _ in range(NUM_REQUESTS)]
    return [
        (f"Ana has {i} nuts. " * rng.choice([1, 3, 9, 40]), each) for i, each in enumerate(steps)
    ]  # 8 to 430 tokens


def proposed(checkpoint: Path, max_batch: int, *, times: int = 1) -> list[list[tuple[str, float]]]:
    """Ask `times` times and return the last answers, for which all prompts are cached."""

    async def run() -> list[list[tuple[str, float]]]:
        async with TransformersPolicy(
            checkpoint, domain=DOMAIN, max_new_tokens=30, max_batch=max_batch, device="cpu"
        ) as policy:
            for _ in range(times):
                asked = (
                    policy.propose(question, prefix, num_candidates=1 + i % 4, seed=i)
                    for i, (question, prefix) in enumerate(requests())
                )
                found = await asyncio.gather(*asked)
            return [[(each.text, each.logprob) for each in one] for one in found]

    return asyncio.run(run())


def scores(checkpoint: Path, max_batch: int, *, times: int = 1) -> list[list[float]]:
    async def run() -> list[list[float]]:
        async with TransformersScorer(checkpoint, domain=DOMAIN, max_batch=max_batch, device="cpu") as asked:
            for _ in range(times):
                each = (
                    asked.score(question, prefix, [STEP.format(i, j, i + j) * (1 + 9 * j) for j in range(1 + i % 4)])
                    for i, (question, prefix) in enumerate(requests())
                )
                found = await asyncio.gather(*each)
            return [list(one) for one in found]

    return asyncio.run(run())


def test_candidates_and_their_probabilities_are_equal_to_the_last_bit(small_policy: Path) -> None:
    alone = proposed(small_policy, 1)
    assert max(len(prefix) for _, prefix in requests()) > 3 and len({text for one in alone for text, _ in one}) > 50
    assert proposed(small_policy, 7) == proposed(small_policy, 1000) == proposed(small_policy, 9, times=2) == alone


def test_scores_are_equal_to_the_last_bit(small_ppm: Path) -> None:
    alone = scores(small_ppm, 1)
    assert len({score for one in alone for score in one}) > NUM_REQUESTS
    assert scores(small_ppm, 9) == scores(small_ppm, 1000) == scores(small_ppm, 7, times=2) == alone


@torch.inference_mode()
def test_a_prompts_states_are_equal_piece_by_piece_and_at_once(small_policy: Path) -> None:
    model = load_policy(small_policy, device="cpu").base_model.eval()
    rng = random.Random(3)
    prompts = [[[rng.randrange(2, 90) for _ in range(rng.randrange(1, 40))] for _ in range(5)] for _ in range(12)]
    at_once, lengths = PrefixCache(model).states(prompts)
    cache = PrefixCache(model)
    for end in range(1, 6):
        by_piece, _ = cache.states([prompt[:end] for prompt in prompts])
    for i, length in enumerate(lengths):
        assert torch.equal(by_piece.keys[:, i, :, :length], at_once.keys[:, i, :, :length])
        assert torch.equal(by_piece.values[:, i, :, :length], at_once.values[:, i, :, :length])
