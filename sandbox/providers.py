"""The one place that knows the sandbox providers by name."""

from __future__ import annotations

from rstar.protocols import UserError
from sandbox.limits import Limits
from sandbox.local import LocalSandbox

PROVIDERS = {"local": LocalSandbox}  # every provider passes tests/sandbox/test_contract.py


def open_sandbox(name: str = "local", *, limits: Limits | None = None, workers: int | None = None) -> LocalSandbox:
    """Return the provider, to be used as `async with open_sandbox("local") as sandbox`."""
    if name not in PROVIDERS:
        raise UserError(f"unknown sandbox {name!r}: choose one of {', '.join(sorted(PROVIDERS))}")
    return PROVIDERS[name](limits=limits, num_workers=workers)
