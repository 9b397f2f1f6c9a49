"""Opening an endpoint: checks that it answers and serves the model that is asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.served.replicas import Replicas
from rstar.protocols import InfrastructureError, UserError

OPENING_SECONDS = 10.0  # in which a replica must answer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a server says about the model."""

    model: str  # its name on the server
    max_context: int | None = None  # tokens; None if the server does not say
    is_vllm: bool = False


@asynccontextmanager
async def open_replicas(
    checkpoint: str, urls: Sequence[str], error: type[InfrastructureError], **options: Any
) -> AsyncIterator[tuple[Replicas, Endpoint]]:
    """Yield the replicas at `urls` when at least one of them answers.

    `options` are those of `Replicas`. Raises UserError if none answers, or if one that answers does not serve
    `checkpoint`.
    """
    if not urls:
        raise UserError(f"no address of an endpoint that serves {checkpoint}; give one in the recipe's [engine]")
    async with Replicas(urls, error, **options) as replicas:
        yield replicas, await _find(checkpoint, replicas)


async def _find(checkpoint: str, replicas: Replicas) -> Endpoint:
    until = time.monotonic() + OPENING_SECONDS
    while not (served := await replicas.models()):
        if time.monotonic() >= until:
            raise UserError(
                f"{', '.join(replicas.urls)}: no endpoint answers there ({replicas.last_failure}); start the server of "
                f"{checkpoint}, or correct the address in the recipe's [engine]"
            )
        await asyncio.sleep(0.5)
    found = {url: _endpoint(checkpoint, models) for url, models in served.items()}
    for url, endpoint in found.items():
        if endpoint is None:
            names = ", ".join(str(model.get("id")) for model in served[url]) or "nothing"
            raise UserError(f"{url}: serves {names}, not {checkpoint}; serve that, or correct the recipe's [engine]")
    endpoints = {endpoint for endpoint in found.values() if endpoint is not None}
    if len(endpoints) > 1:
        listed = "; ".join(f"{url}: {endpoint}" for url, endpoint in found.items())
        raise UserError(f"{checkpoint}: its replicas differ in its name or context ({listed}); serve them alike")
    return endpoints.pop()


def _endpoint(checkpoint: str, models: list[dict[str, Any]]) -> Endpoint | None:
    """Find the model by its name on the server, or by the checkpoint that the server loaded."""
    for model in models:
        if any(name and _same(str(name), checkpoint) for name in (model.get("id"), model.get("root"))):
            return Endpoint(str(model["id"]), model.get("max_model_len"), model.get("owned_by") == "vllm")
    return None


def _same(name: str, checkpoint: str) -> bool:
    return name == checkpoint or (Path(checkpoint).exists() and Path(name).resolve() == Path(checkpoint).resolve())
