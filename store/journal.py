"""A journal in one file: lines of JSON, appended one by one, that outlive a killed process.

Not in the paper. The first line says whose journal it is; another one's is begun anew. What a killed process left of
a line is cut off. A line is handed to the system before `put` returns, and not synchronised to the disk: it outlives
the process, not always the machine's power. Objects cannot be appended to: the journal of a run in an object store
lies in the user's cache folder, and serves who goes on with the run on the same machine.
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
_LENGTH_BITS = 32  # an entry's place in the file is kept as offset << 32 | length: one number, half the memory


class FileJournal:
    """An `rstar.journal.Journal` for one writer; a second one of the same file finds it empty and writes nothing.

    Args:
        url: where it is to lie, beside the table that it is the journal of.
        owner: what the values depend on; plain values by name.
    Raises UserError or StoreError, as `store.files` does, where the file cannot be written.
    """

    def __init__(self, url: str, owner: Mapping[str, str | int]) -> None:
        self.path = local_path(url)
        self.num_replayed = 0
        self._header = (json.dumps(owner, sort_keys=True) + "\n").encode()
        self._places: dict[str, int] = {}
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

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> Any:
        place = self._places.get(key)
        if place is None or self._file < 0:
            return None
        offset, length = place >> _LENGTH_BITS, place & ((1 << _LENGTH_BITS) - 1)
        try:
            found, value = json.loads(os.pread(self._file, length, offset))
        except (OSError, ValueError, TypeError):
            return None  # the engine is asked again
        if found != key:
            return None
        self.num_replayed += 1
        return value

    def put(self, key: str, value: Any) -> None:
        if self._file < 0:
            return
        line = f'["{key}", {json.dumps(value)}]\n'.encode()
        place = self._end << _LENGTH_BITS | len(line)
        try:
            self._append(line)
        except OSError as error:
            raise failure("write", str(self.path), error) from error
        self._places[key] = place

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _append(self, line: bytes) -> None:
        self._end += len(line)
        while line:  # a disk that fills up takes the first part, and says so at the rest
            line = line[os.write(self._file, line) :]

    def _read(self) -> int:
        """Find the entries; returns where the whole lines of this owner end, 0 where it is another's."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            if file.readline() != self._header:
                return 0
            end = len(self._header)
            for line in file:
                if not (line.startswith(_START) and line.endswith(b"\n")):
                    break
                key = line[len(_START) : len(_START) + KEY_LENGTH].decode(errors="replace")
                self._places[key] = end << _LENGTH_BITS | len(line)
                end += len(line)
        return end


def discard(url: str) -> None:
    """Remove the journal at `url`, if there is one: what it was for is done."""
    with suppress(OSError):
        local_path(url).unlink()


def local_path(url: str) -> Path:
    """Where the journal of `url` lies on this machine."""
    if not is_remote(url):
        return Path(url)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "rstar" / "journals" / f"{blake2b(url.encode(), digest_size=16).hexdigest()}.jsonl"


def _locked(file: int) -> bool:
    """Whether the file is this process's alone; a file system without locks is trusted."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
