"""The engines of a search: policy, scorer, sandbox and judge, opened for a block and closed after it.

A task names its models by checkpoint. Torch is loaded when a checkpoint is opened, and not before.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from domains.protocol import Domain
from domains.registry import find_domain
from rstar.protocols import Executor, Judge, Policy, StepScorer, UserError

RULES = "rules"  # the rule-based policy of the miniature world
OPENERS = {  # by kind of engine: a module with open_policy and open_scorer
    "transformers": "tasks.lib.openers.in_process",
    "vllm": "tasks.lib.openers.vllm_servers",
    "openai": "tasks.lib.openers.endpoints",
    RULES: "tasks.lib.openers.rules",
}
ENGINES = tuple(kind for kind in OPENERS if kind != RULES)  # what a recipe can name
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers for a policy and a PPM: this process, vLLM servers, or endpoints that are there already."""

    kind: str = "transformers"  # one of ENGINES
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
    domain: str = "mathematics"
    engine: Engine = Engine()

    def sampled(self, temperature: float) -> Self:
        return replace(self, temperature=temperature)

    def without_ppm(self) -> Self:
        return replace(self, ppm=None)

    @property
    def sampling(self) -> dict[str, Any]:
        """Return the keyword arguments that say how a policy is sampled."""
        return {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "max_context": self.max_context,
            "few_shot": self.few_shot,
        }

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

    domain: Domain
    policy: Policy
    scorer: StepScorer | None
    executor: MeteredExecutor
    judge: Judge

    def for_search(self) -> dict[str, Any]:
        return {
            "steps": self.domain,
            "policy": self.policy,
            "scorer": self.scorer,
            "executor": self.executor,
            "judge": self.judge,
        }


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
    domain = find_domain(models.domain)
    async with (
        opened_policy(models, domain) as policy,
        opened_scorer(models, domain) as scorer,
        opened_sandbox(sandbox) as executor,
        domain.judge(executor) as judge,
    ):
        yield Engines(domain, policy, scorer, executor, judge)


@asynccontextmanager
async def opened_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Open the policy by the engine's kind; one that is no checkpoint is a kind of its own."""
    opener = import_module(OPENERS[RULES if models.policy == RULES else models.engine.kind])
    async with opener.open_policy(models, domain) as policy:
        yield policy


@asynccontextmanager
async def opened_scorer(models: Models, domain: Domain) -> AsyncIterator[StepScorer | None]:
    """Open the PPM by the engine's kind; None where there is none."""
    if models.ppm is None:
        yield None
        return
    async with import_module(OPENERS[models.engine.kind]).open_scorer(models, domain) as scorer:
        yield scorer


@asynccontextmanager
async def opened_sandbox(sandbox: Sandbox) -> AsyncIterator[MeteredExecutor]:
    from sandbox.limits import Limits
    from sandbox.providers import open_sandbox

    limits = Limits(seconds=sandbox.time_limit_seconds, memory_bytes=sandbox.memory_limit_mb * 2**20)
    async with open_sandbox(sandbox.provider, limits=limits) as executor:
        yield executor
