"""A journal in one file: JSON lines, appended one at a time, that survive a killed process.

Not in the paper. The first line identifies the owner; a journal of another owner is emptied and started again. A line
that a killed process wrote only in part is removed when the journal is opened. `put` hands each line to the operating
system but does not sync it to the disk, so a power cut may lose the last lines. Objects cannot be appended to, so the
journal of a run in an object store is in the user's cache folder. It helps only if the run resumes on the same machine.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from store.files import failure, is_remote

KEY_LENGTH = 32
_START = b'["'
_LENGTH_BITS = 32  # a position is stored as offset << 32 | length: one integer takes half the memory of a tuple


class FileJournal:
    """An `rstar.journal.Journal` with one writer. If a second one opens the file, it reads and writes nothing.

    Args:
        url: the journal's place, beside the table that it belongs to.
        owner: everything that the values depend on, by name.
    Raises UserError or StoreError, as `store.files` does, if the file cannot be written.
    """

    def __init__(self, url: str, owner: Mapping[str, str | int]) -> None:
        self.path = local_path(url)
        self._header = (json.dumps(owner, sort_keys=True) + "\n").encode()
        self._positions: dict[str, int] = {}
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            if _locked(self._file):
                self._end = self._read()
                os.truncate(self._file, self._end)
                if not self._end:
                    self._append(self._header)
            else:
                self.close()
        except OSError as error:
            self.close()
            raise failure("write", str(self.path), error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def get(self, key: str) -> Any:
        position = self._positions.get(key)
        if position is None or self._file < 0:
            return None
        offset, length = position >> _LENGTH_BITS, position & ((1 << _LENGTH_BITS) - 1)
        try:
            found, value = json.loads(os.pread(self._file, length, offset))
        except (OSError, ValueError, TypeError):
            return None  # the caller asks the engine again
        return value if found == key else None

    def put(self, key: str, value: Any) -> None:
        if self._file < 0:
            return
        line = f'["{key}", {json.dumps(value)}]\n'.encode()
        position = self._end << _LENGTH_BITS | len(line)
        try:
            self._append(line)
        except OSError as error:
            raise failure("write", str(self.path), error) from error
        self._positions[key] = position

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _append(self, line: bytes) -> None:
        self._end += len(line)
        while line:  # a disk that fills up writes a part first and fails at the rest
            line = line[os.write(self._file, line) :]

    def _read(self) -> int:
        """Index the entries; return the offset where the last whole line ends, or 0 if the owner is another one."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            if file.readline() != self._header:
                return 0
            end = len(self._header)
            for line in file:
                if not (line.startswith(_START) and line.endswith(b"\n")):
                    break
                key = line[len(_START) : len(_START) + KEY_LENGTH].decode(errors="replace")
                self._positions[key] = end << _LENGTH_BITS | len(line)
                end += len(line)
        return end


def discard(url: str) -> None:
    """Remove the journal at `url`, if there is one."""
    with suppress(OSError):
        local_path(url).unlink()


def local_path(url: str) -> Path:
    """The path of the journal of `url` on this machine."""
    if not is_remote(url):
        return Path(url)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rstar" / "journals" / f"{blake2b(url.encode(), digest_size=16).hexdigest()}.jsonl"


def _locked(file: int) -> bool:
    """Lock the file; False if another process holds the lock. A file system without locks counts as locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
