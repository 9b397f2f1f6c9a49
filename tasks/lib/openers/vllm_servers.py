"""vLLM servers, started here or at the addresses of the recipe (recipe: engine.kind = "vllm")."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from domains.protocol import Domain
from rstar.protocols import Policy, StepScorer
from tasks.lib.engines import Models, find_checkpoint


@asynccontextmanager
async def open_policy(models: Models, domain: Domain) -> AsyncIterator[Policy]:
    """Connect to the servers of the policy, which are started if the recipe has no addresses."""
    from models.served.completions import CompletionsPolicy

    checkpoint = find_checkpoint(models.policy)
    async with (
        _addresses(models, domain, checkpoint, "generate") as urls,
        CompletionsPolicy(checkpoint, urls, domain=domain, **models.sampling, **models.engine.client) as policy,
    ):
        yield policy


@asynccontextmanager
async def open_scorer(models: Models, domain: Domain) -> AsyncIterator[StepScorer]:
    """Connect to the servers of the PPM, which are started if the recipe has no addresses."""
    from models.served.pooling import PoolingScorer

    assert models.ppm is not None
    checkpoint, context = find_checkpoint(models.ppm), models.max_context
    async with (
        _addresses(models, domain, checkpoint, "pooling") as urls,
        PoolingScorer(checkpoint, urls, domain=domain, max_context=context, **models.engine.client) as scorer,
    ):
        yield scorer


@asynccontextmanager
async def _addresses(
    models: Models, domain: Domain, checkpoint: str, runner: Literal["generate", "pooling"]
) -> AsyncIterator[Sequence[str]]:
    """Yield the addresses in the recipe, or those of servers started for this checkpoint."""
    engine = models.engine
    if urls := engine.urls if runner == "generate" else engine.ppm_urls:
        yield urls
        return
    from models.served.vllm_servers import Serving, served

    serving = Serving(
        checkpoint,
        runner,
        log_dir=engine.log_dir or str(Path(tempfile.gettempdir()) / f"rstar-vllm-{os.getpid()}"),
        stop_strings=tuple(domain.stop_strings),
        replicas=engine.replicas,
        tensor_parallel=engine.tensor_parallel,
        max_context=models.max_context,
        device=models.device,
        gpu_memory=engine.policy_gpu_memory if runner == "generate" else engine.ppm_gpu_memory,
    )
    async with served(serving) as addresses:
        yield addresses
