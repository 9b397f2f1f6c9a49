"""OpenAI-compatible endpoints (recipe: engine.kind = "openai"). A PPM without an endpoint runs in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from domains.protocol import Domain
from rstar.protocols import Policy, StepScorer
from tasks.lib.engines import Models, find_checkpoint
from tasks.lib.openers import in_process


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Connect to the endpoints of the policy."""
    from models.served.completions import CompletionsPolicy

    checkpoint, urls = find_checkpoint(models.policy), models.engine.urls
    async with CompletionsPolicy(checkpoint, urls, domain=domain, **models.sampling, **models.engine.client) as policy:
        yield policy


@asynccontextmanager
async def open_scorer(models: Models, domain: Domain) -> AsyncIterator[StepScorer]:
    """Connect to the endpoints of the PPM, or load it into this process if it has none."""
    if not models.engine.ppm_urls:
        async with in_process.open_scorer(models, domain) as local:
            yield local
        return
    from models.served.pooling import PoolingScorer

    assert models.ppm is not None
    checkpoint, urls, client = find_checkpoint(models.ppm), models.engine.ppm_urls, models.engine.client
    async with PoolingScorer(checkpoint, urls, domain=domain, max_context=models.max_context, **client) as scorer:
        yield scorer
