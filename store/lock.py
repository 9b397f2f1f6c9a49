"""A lock on a run's folder, so that only one evolution works in it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rstar.protocols import UserError
from store.files import failure, is_remote


@contextmanager
def alone_in(root: str) -> Iterator[None]:
    """Hold the folder's lock while the block runs; raises UserError at once if another process holds it.

    The kernel releases the lock when the process dies, even if it is killed; on a file system without locks the lock
    file itself is the lock, and stays. A run in an object store is not locked: object stores have no locks.
    """
    if is_remote(root):
        yield
        return
    folder = Path(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock").acquire(blocking=False)
    except OSError as error:
        if not isinstance(error, Timeout):
            raise failure("write", root, error) from error
        raise UserError(f"{root}: another run is at work in this folder; let it end, or name another one") from None
    with lock:
        yield
