"""The local provider: fork servers that are children of this process.

For code that a model wrote, not for code that an attacker wrote: see `protections`.
"""

from __future__ import annotations

import os
from functools import partial

from sandbox.limits import Limits
from sandbox.link import LocalLink
from sandbox.pool import Sandbox


class LocalSandbox(Sandbox):
    """A Sandbox on this machine's kernel, as the current user."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        num_workers: int | None = None,
        fast_path: bool = True,
        namespaces: bool = True,
    ) -> None:
        launch = partial(LocalLink.start, namespaces=namespaces)
        super().__init__(launch, limits=limits, num_workers=num_workers, fast_path=fast_path)

    def protections(self) -> str:
        """One paragraph: what stands between a step and this machine, and what does not."""
        isolation = self._servers[0].isolation
        took = [text for key, text in _TOOK.items() if isolation.get(key)]
        missing = [text for key, text in _MISSING.items() if not isolation.get(key)]
        return (
            "Local sandbox: steps run on this machine's kernel as the current user"
            f"{' (root)' if os.geteuid() == 0 else ''}, with time, memory, file and output limits"
            f"{''.join(f', {text}' for text in took)}. It does NOT protect against code written to attack: such code "
            "can read every file this user can read, use more memory or processes than one step's share by starting "
            f"several, fill the disk, exploit the kernel, forge its own verdict{''.join(f'; {m}' for m in missing)}. "
            "The rules against subprocesses, sockets and writing outside the work folder are checked by Python and can "
            "be talked round. Use it for the output of your own models only."
        )


_TOOK = {
    "network": "no network",
    "processes": "a process namespace of their own",
    "files": "all files read-only but their work folder",
}
_MISSING = {
    "network": "the kernel refused a network namespace, so it can use the network",
    "processes": "the kernel refused a process namespace, so it can signal your processes",
    "files": "and it can change your files",
}
