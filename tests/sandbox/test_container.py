"""Which files the image gets, and which containers a start removes on a shared engine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sandbox.container import HERE as ROOM
from sandbox.container import LABEL, labels, remove_orphans, server_files

MINE = labels()
HERE = {label: value for label, value in MINE.items() if label.endswith((".boot", ".namespace"))}
GONE = {LABEL: "999999999", f"{LABEL}.started": "1"}


class Container:
    def __init__(self, carried: dict[str, str], status: str) -> None:
        self.id = "c"
        self.labels = carried
        self.status = status
        self.removed = False

    def remove(self, **_: bool) -> None:
        self.removed = True


class Client:
    """An engine with one container."""

    def __init__(self, container: Container) -> None:
        self.containers = self
        self._container = container

    def list(self, **_: Any) -> list[Container]:
        return [self._container]


@pytest.mark.parametrize(
    ("carried", "status", "removed"),
    [
        (GONE | HERE, "running", True),
        (MINE, "running", False),
        (MINE | {f"{LABEL}.started": "1"}, "running", True),  # another process has its id now
        (GONE | HERE | {f"{LABEL}.namespace": "1"}, "running", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "running", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "created", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "exited", True),
        (GONE, "running", False),
        (GONE, "dead", True),
    ],
)
def test_only_containers_of_owners_known_to_have_ended_are_removed(
    carried: dict[str, str], status: str, removed: bool
) -> None:
    container = Container(carried, status)
    assert (remove_orphans(Client(container)), container.removed) == (["c"] * removed, removed)


def test_the_server_needs_only_the_files_of_the_image_and_the_standard_library(tmp_path: Path) -> None:
    for file in server_files():
        target = tmp_path / file.relative_to(ROOM.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sandbox.inside.server import main"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
