# ruff: noqa: PTH101, PTH104, PTH106, PTH108, PTH118
"""Measures and removes folders that a step has written, whatever their depth and modes. Standard library only."""

from __future__ import annotations

import os
import stat
from contextlib import suppress


def fresh_name() -> str:
    """A random name that no step can guess."""
    return os.urandom(16).hex()


def remove(folder: str, spare: str) -> None:
    """Remove a folder tree. Its subfolders are first moved to `spare`, a folder on the same file system.

    `shutil.rmtree` is no use here: it recurses as deep as the tree, and fails at a folder without read permission.
    """
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        with suppress(OSError):
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                os.unlink(path)
                continue
            os.chmod(path, 0o700)
            with os.scandir(path) as listing:
                entries = list(listing)
            for entry in entries:
                with suppress(OSError):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.path)
                        continue
                    os.chmod(entry.path, 0o700)  # moving a folder needs write permission on it
                    branch = os.path.join(spare, fresh_name())
                    os.rename(entry.path, branch)
                    waiting.append(branch)
            os.rmdir(path)
    with suppress(OSError):
        os.rmdir(folder)


def exceeds(folder: str, *, max_bytes: int, max_entries: int) -> bool:
    """Whether a tree exceeds one of the limits. A folder that cannot be read counts as exceeding them."""
    num_bytes, num_entries, waiting = 0, 0, [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    num_bytes += status.st_blocks * 512
                    num_entries += 1
                    if num_bytes > max_bytes or num_entries > max_entries:
                        return True
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
        except OSError:
            return True
    return False
