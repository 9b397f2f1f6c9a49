"""Opening an endpoint: does it live, and does it serve the model that is asked for?"""

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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What a server says of the model asked for."""

    model: str  # its name there
    max_context: int | None = None  # tokens; None where the server does not say
    is_vllm: bool = False


@asynccontextmanager
async def open_replicas(
    checkpoint: str,
    urls: Sequence[str],
    error: type[InfrastructureError],
    *,
    opening_seconds: float = 10.0,
    **options: Any,
) -> AsyncIterator[tuple[Replicas, Endpoint]]:
    """Yield the replicas at `urls` once one of them answers; all that answer must serve `checkpoint`, or a UserError.

    `options` are those of `Replicas`.
    """
    if not urls:
        raise UserError(f"no address of an endpoint that serves {checkpoint}; give one in the recipe's [engine]")
    async with Replicas(urls, error, **options) as replicas:
        yield replicas, await _find(checkpoint, replicas, opening_seconds)


async def _find(checkpoint: str, replicas: Replicas, opening_seconds: float) -> Endpoint:
    until = time.monotonic() + opening_seconds
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
        told = "; ".join(f"{url}: {endpoint}" for url, endpoint in found.items())
        raise UserError(f"{checkpoint}: its replicas differ in its name or context ({told}); serve them alike")
    return endpoints.pop()


def _endpoint(checkpoint: str, models: list[dict[str, Any]]) -> Endpoint | None:
    """The model asked for, by the name it is served under or the checkpoint it was loaded from."""
    for model in models:
        if any(name and _same(str(name), checkpoint) for name in (model.get("id"), model.get("root"))):
            return Endpoint(str(model["id"]), model.get("max_model_len"), model.get("owned_by") == "vllm")
    return None


def _same(name: str, checkpoint: str) -> bool:
    return name == checkpoint or (Path(checkpoint).exists() and Path(name).resolve() == Path(checkpoint).resolve())
