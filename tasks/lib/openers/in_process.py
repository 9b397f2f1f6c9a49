"""Models in this process, by transformers (recipe: engine.kind = "transformers")."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from domains.protocol import Domain
from rstar.protocols import Policy, StepScorer
from tasks.lib.engines import RULES, Models, find_checkpoint


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Load the policy into this process."""
    from models.inprocess.policy import TransformersPolicy

    checkpoint = find_checkpoint(models.policy)
    async with TransformersPolicy(checkpoint, domain=domain, **models.sampling, **_place(models)) as policy:
        yield policy


@asynccontextmanager
async def open_scorer(models: Models, domain: Domain) -> AsyncIterator[StepScorer]:
    """Load the PPM into this process."""
    from models.inprocess.scorer import TransformersScorer

    assert models.ppm is not None
    checkpoint, place = find_checkpoint(models.ppm), _place(models)
    async with TransformersScorer(checkpoint, domain=domain, max_context=models.max_context, **place) as scorer:
        yield scorer


def _place(models: Models) -> dict[str, Any]:
    """Return the arguments that say where a model runs. A policy and a PPM in one process share its threads equally."""
    from models.batching import NUM_THREADS

    both = models.ppm is not None and models.policy != RULES and models.engine.kind == "transformers"
    threads = max(1, NUM_THREADS // 2) if both else NUM_THREADS
    return {"max_batch": models.max_batch, "device": models.device, "threads": threads}
