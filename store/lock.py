"""One evolution at a time in a run's folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rstar.protocols import UserError
from store.files import is_remote


@contextmanager
def alone_in(root: str) -> Iterator[None]:
    """Keep others out of the folder while the block runs; a UserError if another has it.

    The kernel lets go of it with the process, however that ends. Object stores have no such locks: nothing is kept
    there.
    """
    if is_remote(root):
        yield
        return
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{root}: another run is at work in this folder; let it end, or name another one") from None
        yield
