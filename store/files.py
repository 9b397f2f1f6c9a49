"""Whole files on a local disk or in an object store.

A local file is written under a temporary name and renamed; an object is written with one PUT. A reader therefore sees
the old file or the new one, never part of one. If two writers write the same file, the last one wins.

Errors: `UserError` if a person must act (no space, no permission, no such file), `StoreError` if a retry may help.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

from rstar.protocols import StoreError, UserError

_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EACCES: "permission denied; choose another folder, or change its owner",
    errno.EPERM: "permission denied; choose another folder, or change its owner",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another folder",
    errno.EEXIST: "a part of the path is a file, not a folder; choose another folder",
    errno.EISDIR: "it is a folder; choose another name",
    errno.ENOENT: "no such file; check the path, or run the step that makes it",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
}


def is_remote(url: str) -> bool:
    return "://" in url


def filesystem(url: str) -> Any:
    """The fsspec filesystem of an object-store URL. Listings are not cached, because other workers write there too."""
    protocol = url.split("://", 1)[0]
    try:
        return fsspec.filesystem(protocol, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise UserError(f"{url}: cannot open {protocol}:// ({error}); use a folder or an s3:// URL") from error


def failure(action: str, url: str, error: OSError) -> UserError | StoreError:
    """The error to raise for an OSError: one line that names the file and says what to do."""
    code = errno.ENOENT if isinstance(error, FileNotFoundError) else error.errno
    if isinstance(error, PermissionError):
        code = code or errno.EACCES
    if code in _ADVICE:
        return UserError(f"cannot {action} {url}: {_ADVICE[code]}")
    return StoreError(f"cannot {action} {url}: {' '.join(str(error).split())}")


@contextmanager
def _translated(action: str, url: str) -> Iterator[None]:
    """Translate OSErrors of the block as `failure` does, and also errors of the object store's client."""
    try:
        yield
    except OSError as error:
        raise failure(action, url, error) from error
    except Exception as error:
        if not type(error).__module__.startswith("botocore."):
            raise
        kind = UserError if type(error).__name__ == "NoCredentialsError" else StoreError
        raise kind(f"cannot {action} {url}: {error}; check AWS_ENDPOINT_URL and the credentials") from error


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` to `url`, all of it or nothing."""
    with _translated("write", url):
        if is_remote(url):
            filesystem(url).pipe_file(url, data)
        else:
            _replace(Path(url), data)


def read_bytes(url: str) -> bytes:
    with _translated("read", url):
        content: bytes = filesystem(url).cat_file(url) if is_remote(url) else Path(url).read_bytes()
        return content


def exists(url: str) -> bool:
    with _translated("look for", url):
        return bool(filesystem(url).exists(url)) if is_remote(url) else Path(url).exists()


def matching(root: str, pattern: str) -> list[str]:
    """The files under `root` that match `pattern`, sorted."""
    if not is_remote(root):
        return sorted(str(path) for path in Path(root).glob(pattern))
    fs = filesystem(root)
    with _translated("list", root):
        return sorted(fs.unstrip_protocol(path) for path in fs.glob(f"{root}/{pattern}"))


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename must stay on one disk. Hidden and not named *.parquet, so no glob matches it.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the folder, so that the rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
