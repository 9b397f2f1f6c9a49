"""The engines of a search: policy, scorer, sandbox and judge, open for the length of a block.

A task names its models by checkpoint. Torch is loaded only when a checkpoint is opened in this process.
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

RULES = "rules"  # names the rule-based policy of the miniature world
OPENERS = {  # by kind of engine: the module with its open_policy and open_scorer
    "transformers": "tasks.lib.openers.in_process",
    "vllm": "tasks.lib.openers.vllm_servers",
    "openai": "tasks.lib.openers.endpoints",
    RULES: "tasks.lib.openers.rules",
}
ENGINES = tuple(kind for kind in OPENERS if kind != RULES)  # the kinds that a recipe can name
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What runs the policy and the PPM: this process, vLLM servers, or endpoints that already run."""

    kind: str = "transformers"  # one of ENGINES
    urls: tuple[str, ...] = ()  # of the policy, one for each replica; if empty, kind vllm starts servers
    ppm_urls: tuple[str, ...] = ()  # of the PPM, likewise
    replicas: int = 1  # servers to start for each model
    tensor_parallel: int = 1  # GPUs of each server
    policy_gpu_memory: float = 0.55  # share of each GPU's memory
    ppm_gpu_memory: float = 0.35
    max_in_flight: int = 64  # requests for each replica of the policy; a replica of the PPM has two
    timeout_seconds: float = 600.0  # of one request
    patience_seconds: float = 900.0  # how long requests to replicas that do not answer are repeated
    log_dir: str = ""  # for the logs of started servers; if empty, the system's temporary folder

    @property
    def client(self) -> dict[str, Any]:
        """The keyword arguments of a client of these engines."""
        return {
            "max_in_flight": self.max_in_flight,
            "timeout_seconds": self.timeout_seconds,
            "patience_seconds": self.patience_seconds,
            "api_key": os.environ.get("OPENAI_API_KEY", "").strip() if self.kind == "openai" else "",
        }


@dataclass(frozen=True, slots=True)
class Models:
    """A policy, perhaps with a PPM, and how they are run."""

    policy: str  # `rules`, a checkpoint folder, or a Hugging Face name
    ppm: str | None = None  # a checkpoint folder
    temperature: float = 1.0  # of the policy; 0 is greedy
    max_new_tokens: int = 2048  # of one step
    max_context: int = 4096  # tokens of a prompt and its next step
    max_batch: int = 64  # sequences in a batch of an engine in this process
    device: str = ""  # if empty, a GPU if there is one
    few_shot: bool = False  # whether the policy gets the few-shot prompt
    seed: int = 0  # of the rule-based policy
    domain: str = "mathematics"
    engine: EngineSettings = EngineSettings()

    def with_temperature(self, temperature: float) -> Self:
        """Return the same models with another temperature."""
        return replace(self, temperature=temperature)

    def without_ppm(self) -> Self:
        """Return the policy alone."""
        return replace(self, ppm=None)

    @property
    def sampling(self) -> dict[str, Any]:
        """The keyword arguments of a policy that concern sampling."""
        return {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            "max_context": self.max_context,
            "few_shot": self.few_shot,
        }

    @property
    def policy_fingerprint(self) -> str:
        """Fingerprint of the policy."""
        return fingerprint(self.policy)

    @property
    def ppm_fingerprint(self) -> str:
        """Fingerprint of the PPM; empty if there is none."""
        return fingerprint(self.ppm) if self.ppm else ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of policy and PPM together, as the column `model` of a row has it."""
        return "+".join(filter(None, (self.policy_fingerprint, self.ppm_fingerprint)))


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """Where the code of steps runs, and its limits."""

    provider: str = "auto"  # as in `sandbox.providers.open_sandbox`
    time_limit_seconds: float = 2.0  # of a step
    memory_limit_mb: int = 512  # of a step, in MiB


@runtime_checkable
class Metered(Protocol):
    """An engine or a sandbox that counts its work."""

    def metrics(self) -> dict[str, float]:
        """Return the counts so far, by name."""
        ...


class MeteredExecutor(Executor, Metered, Protocol):
    """An executor that counts its work; the names are those of `sandbox.pool.Sandbox.metrics`."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The open engines of a search, and its domain."""

    domain: Domain
    policy: Policy
    scorer: StepScorer | None
    executor: MeteredExecutor
    judge: Judge

    def for_search(self) -> dict[str, Any]:
        """Return the keyword arguments of `rstar.search.search`."""
        return {
            "steps": self.domain,
            "policy": self.policy,
            "scorer": self.scorer,
            "executor": self.executor,
            "judge": self.judge,
        }


def find_checkpoint(name: str) -> str:
    """Return the absolute path of a checkpoint folder, or `name` itself if it is a Hugging Face name.

    A relative path is looked up in the current folder, then beside the installed packages. Raises UserError if a path
    is not a folder.
    """
    for folder in (Path(name), ROOT / name):
        if folder.is_dir():
            return str(folder.resolve())
    if name.startswith((".", "/", "miniature/", "models/")) or name.count("/") > 1:  # not a Hugging Face name
        raise UserError(
            f"no checkpoint in {name}: `make tiny-base` builds the tiny base, `rstar evolve` trains the models of a "
            "run; or name another model"
        )
    return name


def fingerprint(checkpoint: str) -> str:
    """Return the fingerprint in a checkpoint's manifest, or the checkpoint's name if it has none."""
    manifest = Path(checkpoint) / "manifest.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text()).get("fingerprint", checkpoint))
    return checkpoint


@asynccontextmanager
async def open_engines(models: Models, sandbox: SandboxSettings) -> AsyncIterator[Engines]:
    """Open all that a search needs."""
    domain = find_domain(models.domain)
    async with (
        open_policy(models, domain) as policy,
        open_scorer(models, domain) as scorer,
        _open_sandbox(sandbox) as executor,
        domain.judge(executor) as judge,
    ):
        yield Engines(domain, policy, scorer, executor, judge)


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Open the policy with the engine of its kind; the rule-based policy is a kind of its own."""
    opener = import_module(OPENERS[RULES if models.policy == RULES else models.engine.kind])
    async with opener.open_policy(models, domain) as policy:
        yield policy


@asynccontextmanager
async def open_scorer(models: Models, domain: Domain) -> AsyncIterator[StepScorer | None]:
    """Open the PPM with the engine of its kind; yield None if there is no PPM."""
    if models.ppm is None:
        yield None
        return
    async with import_module(OPENERS[models.engine.kind]).open_scorer(models, domain) as scorer:
        yield scorer


@asynccontextmanager
async def _open_sandbox(sandbox: SandboxSettings) -> AsyncIterator[MeteredExecutor]:
    from sandbox.limits import Limits
    from sandbox.providers import open_sandbox

    limits = Limits(seconds=sandbox.time_limit_seconds, memory_bytes=sandbox.memory_limit_mb * 2**20)
    async with open_sandbox(sandbox.provider, limits=limits) as executor:
        yield executor
