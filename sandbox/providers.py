"""Opens a sandbox by the name of its provider."""

from __future__ import annotations

from rstar.protocols import UserError
from sandbox.limits import Limits
from sandbox.pool import Sandbox

# tests/sandbox/test_contract.py covers docker and local. gvisor has not been tested.
PROVIDERS = ("auto", "docker", "gvisor", "local")


def open_sandbox(name: str = "auto", *, limits: Limits | None = None, workers: int | None = None) -> Sandbox:
    """Return a sandbox of the provider `name`. Use it as `async with open_sandbox("docker") as sandbox`."""
    provider, _ = choose(name)
    if provider == "local":
        from sandbox.local import LocalSandbox

        return LocalSandbox(limits=limits, num_workers=workers)
    from sandbox.container import GVISOR, DockerSandbox

    return DockerSandbox(limits=limits, num_workers=workers, runtime=GVISOR if provider == "gvisor" else None)


def choose(name: str) -> tuple[str, str]:
    """Return the provider that `name` stands for, and why, if `auto` falls back to the local one."""
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
