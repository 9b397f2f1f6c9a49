"""The engines of a search: policy, scorer, sandbox and judge, opened for a block and closed after it.

A task names its models by checkpoint; torch is loaded where a checkpoint is opened, and not before.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

from rstar.protocols import Executor, Judge, Policy, StepScorer, UserError

RULES = "rules"  # the rule-based bootstrap policy
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers for a policy and a PPM: this process, vLLM servers, or endpoints that are there already."""

    kind: str = "transformers"  # transformers | vllm | openai
    urls: tuple[str, ...] = ()  # of the policy's endpoint, one a replica; empty: vllm starts its own
    ppm_urls: tuple[str, ...] = ()
    replicas: int = 1
    tensor_parallel: int = 1
    policy_gpu_memory: float = 0.55
    ppm_gpu_memory: float = 0.35
    max_in_flight: int = 64  # requests a replica; a PPM's has two
    timeout_seconds: float = 600.0  # of one request
    patience_seconds: float = 900.0  # with replicas that do not answer
    log_dir: str = ""  # of the servers that are started; empty: the system's temporary folder

    @property
    def client(self) -> dict[str, Any]:
        return {
            "max_in_flight": self.max_in_flight,
            "timeout_seconds": self.timeout_seconds,
            "patience_seconds": self.patience_seconds,
            "api_key": os.environ.get("OPENAI_API_KEY", "").strip() if self.kind == "openai" else "",
        }


@dataclass(frozen=True, slots=True)
class Models:
    """Which policy and PPM, and how the policy is sampled; temperature 0 is greedy."""

    policy: str  # `rules`, a checkpoint's folder, or a Hugging Face name
    ppm: str | None = None
    temperature: float = 1.0
    max_new_tokens: int = 2048
    max_context: int = 4096
    max_batch: int = 64
    device: str = ""  # empty: a GPU where there is one
    few_shot: bool = False  # for a policy that has not been fine-tuned on the step format
    seed: int = 0  # of the rule-based policy
    engine: Engine = Engine()

    def sampled(self, temperature: float) -> Self:
        return replace(self, temperature=temperature)

    def without_ppm(self) -> Self:
        return replace(self, ppm=None)

    @property
    def local(self) -> dict[str, Any]:
        """Of an engine in process. Where policy and PPM are both, each gets half of the threads."""
        from models.batching import NUM_THREADS

        both = self.ppm is not None and self.policy != RULES and self.engine.kind == "transformers"
        threads = max(1, NUM_THREADS // 2) if both else NUM_THREADS
        return {"max_batch": self.max_batch, "device": self.device, "threads": threads}

    @property
    def policy_print(self) -> str:
        return fingerprint(self.policy)

    @property
    def ppm_print(self) -> str:
        return fingerprint(self.ppm) if self.ppm else ""

    @property
    def fingerprint(self) -> str:
        """Names the models whose work a row is."""
        return "+".join(filter(None, (self.policy_print, self.ppm_print)))


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where steps run, and their limits."""

    provider: str = "auto"
    time_limit_seconds: float = 2.0
    memory_limit_mb: int = 512


@runtime_checkable
class Metered(Protocol):
    """What counts what it does: engines and sandboxes."""

    def metrics(self) -> dict[str, float]: ...


class MeteredExecutor(Executor, Metered, Protocol):
    """An executor that counts what it did; names and meanings are those of `sandbox.pool.Sandbox.metrics`."""


@dataclass(frozen=True, slots=True)
class Engines:
    """What a search is given."""

    policy: Policy
    scorer: StepScorer | None
    executor: MeteredExecutor
    judge: Judge

    def for_search(self) -> dict[str, Any]:
        return {"policy": self.policy, "scorer": self.scorer, "executor": self.executor, "judge": self.judge}


def find_checkpoint(name: str) -> str:
    """Resolve a folder, also one of the installed package; what is no folder is a Hugging Face name."""
    for place in (Path(name), ROOT / name):
        if place.is_dir():
            return str(place.resolve())
    if (
        name.startswith((".", "/", "miniature/", "models/")) or name.count("/") > 1
    ):  # a Hugging Face name has one slash at most
        raise UserError(
            f"no checkpoint in {name}: `make tiny-base` builds the tiny base, `rstar evolve` a round's; "
            "or name another model"
        )
    return name


def fingerprint(checkpoint: str) -> str:
    """Return the manifest's fingerprint, or the name of what has none."""
    manifest = Path(checkpoint) / "manifest.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text()).get("fingerprint", checkpoint))
    return checkpoint


@asynccontextmanager
async def opened(models: Models, sandbox: Sandbox) -> AsyncIterator[Engines]:
    """Open everything that a search needs."""
    from domains.mathematics.grading.judge import MathJudge

    async with (
        opened_policy(models) as policy,
        opened_scorer(models) as scorer,
        opened_sandbox(sandbox) as executor,
        MathJudge() as judge,
    ):
        yield Engines(policy, scorer, executor, judge)


@asynccontextmanager
async def opened_policy(models: Models) -> AsyncIterator[Policy]:
    if models.policy == RULES:
        from miniature.writer import BootstrapPolicy

        yield BootstrapPolicy(seed=models.seed)
        return
    checkpoint = find_checkpoint(models.policy)
    sampling: dict[str, Any] = {
        "temperature": models.temperature,
        "max_new_tokens": models.max_new_tokens,
        "max_context": models.max_context,
        "few_shot": models.few_shot,
    }
    if models.inprocess.policy.kind == "transformers":
        from models.inprocess.policy import TransformersPolicy

        async with TransformersPolicy(checkpoint, **sampling, **models.local) as policy:
            yield policy
        return
    from models.served.completions import CompletionsPolicy

    async with (
        endpoint(models, checkpoint, "generate") as urls,
        CompletionsPolicy(checkpoint, urls, **sampling, **models.inprocess.policy.client) as remote,
    ):
        yield remote


@asynccontextmanager
async def endpoint(models: Models, checkpoint: str, runner: Literal["generate", "pooling"]) -> AsyncIterator[list[str]]:
    """Give the addresses of the recipe, or those of vLLM servers started for this checkpoint."""
    engine = models.inprocess.policy
    urls = engine.urls if runner == "generate" else engine.ppm_urls
    if urls or engine.kind != "vllm":
        yield list(urls)
        return
    from models.served.vllm_servers import Serving, served

    serving = Serving(
        checkpoint,
        runner,
        log_dir=engine.log_dir or str(Path(tempfile.gettempdir()) / f"rstar-vllm-{os.getpid()}"),
        replicas=engine.replicas,
        tensor_parallel=engine.tensor_parallel,
        max_context=models.max_context,
        device=models.device,
        gpu_memory=engine.policy_gpu_memory if runner == "generate" else engine.ppm_gpu_memory,
    )
    async with served(serving) as addresses:
        yield addresses


@asynccontextmanager
async def opened_scorer(models: Models) -> AsyncIterator[StepScorer | None]:
    if models.ppm is None:
        yield None
        return
    checkpoint, engine = find_checkpoint(models.ppm), models.inprocess.policy
    if engine.kind == "transformers" or (engine.kind == "openai" and not engine.ppm_urls):
        from models.inprocess.scorer import TransformersScorer

        async with TransformersScorer(checkpoint, max_context=models.max_context, **models.local) as scorer:
            yield scorer
        return
    from models.served.pooling import PoolingScorer

    async with (
        endpoint(models, checkpoint, "pooling") as urls,
        PoolingScorer(checkpoint, urls, max_context=models.max_context, **engine.client) as remote,
    ):
        yield remote


@asynccontextmanager
async def opened_sandbox(sandbox: Sandbox) -> AsyncIterator[MeteredExecutor]:
    from sandbox.limits import Limits
    from sandbox.providers import open_sandbox

    limits = Limits(seconds=sandbox.time_limit_seconds, memory_bytes=sandbox.memory_limit_mb * 2**20)
    async with open_sandbox(sandbox.provider, limits=limits) as executor:
        yield executor
