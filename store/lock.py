"""A lock on a run's folder, so that only one evolution works in it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rstar.protocols import UserError
from store.files import is_remote


@contextmanager
def alone_in(root: str) -> Iterator[None]:
    """Hold the folder's lock while the block runs; raises UserError at once if another process holds it.

    The kernel releases the lock when the process dies, even if it is killed. A run in an object store is not locked,
    because object stores have no locks.
    """
    if is_remote(root):
        yield
        return
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout:
        raise UserError(f"{root}: another run is at work in this folder; let it end, or name another one") from None
    with lock:
        yield
