"""The one place that knows the sandbox providers by name."""

from __future__ import annotations

from rstar.protocols import UserError
from sandbox.limits import Limits
from sandbox.pool import Sandbox

# docker and local pass tests/sandbox/test_contract.py; gvisor is untried.
PROVIDERS = ("auto", "docker", "gvisor", "local")


def open_sandbox(name: str = "auto", *, limits: Limits | None = None, workers: int | None = None) -> Sandbox:
    """Return the provider, to be used as `async with open_sandbox("docker") as sandbox`."""
    provider, _ = choose(name)
    if provider == "local":
        from sandbox.local import LocalSandbox

        return LocalSandbox(limits=limits, num_workers=workers)
    from sandbox.container import GVISOR, DockerSandbox

    return DockerSandbox(limits=limits, num_workers=workers, runtime=GVISOR if provider == "gvisor" else None)


def choose(name: str) -> tuple[str, str]:
    """Return the provider that `name` means here, and, where `auto` falls back to the local one, why."""
    if name not in PROVIDERS:
        raise UserError(f"unknown sandbox {name!r}: choose one of {', '.join(PROVIDERS)}")
    if name != "auto":
        return name, ""
    from sandbox.container import IMAGE, check_image, engine

    try:
        with engine() as client:
            check_image(client, IMAGE)
    except UserError as error:
        return "local", str(error)
    return "docker", ""
