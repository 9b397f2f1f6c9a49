"""The one place that knows the sandbox providers by name."""

from __future__ import annotations

from rstar.protocols import UserError
from sandbox.limits import Limits
from sandbox.pool import Sandbox

PROVIDERS = ("docker", "gvisor", "local")  # every provider passes tests/sandbox/test_contract.py


def open_sandbox(name: str = "local", *, limits: Limits | None = None, workers: int | None = None) -> Sandbox:
    """Return the provider, to be used as `async with open_sandbox("docker") as sandbox`."""
    if name == "local":
        from sandbox.local import LocalSandbox

        return LocalSandbox(limits=limits, num_workers=workers)
    if name in ("docker", "gvisor"):
        from sandbox.container import DockerSandbox

        return DockerSandbox(limits=limits, num_workers=workers, runtime="runsc" if name == "gvisor" else None)
    raise UserError(f"unknown sandbox {name!r}: choose one of {', '.join(PROVIDERS)}")
