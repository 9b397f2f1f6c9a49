"""The engines of a search: policy, scorer, sandbox and judge, opened for a block and closed after it.

A task names its models by checkpoint; torch is loaded where a checkpoint is opened, and not before.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

from rstar.protocols import Executor, Judge, Policy, StepScorer, UserError

RULES = "rules"  # the rule-based bootstrap policy
ROOT = Path(__file__).parent.parent


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

    def sampled(self, temperature: float) -> Self:
        return replace(self, temperature=temperature)

    def without_ppm(self) -> Self:
        return replace(self, ppm=None)

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


class MeteredExecutor(Executor, Protocol):
    """An executor that counts what it did; names and meanings are those of `sandbox.pool.Sandbox.metrics`."""

    def metrics(self) -> dict[str, float]: ...


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
    if name.startswith((".", "/", "models/")) or name.count("/") > 1:  # a Hugging Face name has one slash at most
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
    from problems.grading import MathJudge

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
        from problems.bootstrap import BootstrapPolicy

        yield BootstrapPolicy(seed=models.seed)
        return
    from models.engine import TransformersPolicy

    engine = TransformersPolicy(
        find_checkpoint(models.policy),
        temperature=models.temperature,
        max_new_tokens=models.max_new_tokens,
        max_context=models.max_context,
        max_batch=models.max_batch,
        device=models.device,
        few_shot=models.few_shot,
    )
    async with engine as policy:
        yield policy


@asynccontextmanager
async def opened_scorer(models: Models) -> AsyncIterator[StepScorer | None]:
    if models.ppm is None:
        yield None
        return
    from models.scorer import TransformersScorer

    async with TransformersScorer(
        find_checkpoint(models.ppm), max_batch=models.max_batch, max_context=models.max_context, device=models.device
    ) as scorer:
        yield scorer


@asynccontextmanager
async def opened_sandbox(sandbox: Sandbox) -> AsyncIterator[MeteredExecutor]:
    from sandbox.limits import Limits
    from sandbox.providers import open_sandbox

    limits = Limits(seconds=sandbox.time_limit_seconds, memory_bytes=sandbox.memory_limit_mb * 2**20)
    async with open_sandbox(sandbox.provider, limits=limits) as executor:
        yield executor
