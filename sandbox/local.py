"""The local provider: fork servers that are children of this process.

It is for code that your own models wrote, not for an attacker's code; see `protections`.
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
        """One paragraph: what protects this machine from a step, and what does not."""
        isolation = self._servers[0].isolation
        granted = [text for key, text in _GRANTED.items() if isolation.get(key)]
        missing = [text for key, text in _MISSING.items() if not isolation.get(key)]
        return (
            "Local sandbox: steps run on this machine's kernel as the current user"
            f"{' (root)' if os.geteuid() == 0 else ''}, with time, memory, file and output limits"
            f"{''.join(f', {text}' for text in granted)}. It does NOT protect against hostile code: such code can read "
            "every file that this user can read, exceed the memory limit by starting several processes, fill the disk, "
            f"exploit the kernel and forge its own verdict{''.join(f'; {text}' for text in missing)}. "
            "The rules against subprocesses, sockets and writing outside the work folder are checks in Python, which "
            "code can bypass. Use it for the output of your own models only."
        )


_GRANTED = {
    "network": "no network",
    "processes": "their own process namespace",
    "files": "and all files read-only except their work folder",
}
_MISSING = {
    "network": "the kernel refused a network namespace, so it can use the network",
    "processes": "the kernel refused a process namespace, so it can signal your processes",
    "files": "it can change your files",
}
