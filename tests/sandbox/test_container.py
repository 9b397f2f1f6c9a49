"""Which containers a start clears away, on an engine that others use too."""

from __future__ import annotations

import os
from typing import Any

import pytest

from sandbox.container import LABEL, place, process_start, remove_orphans

GONE = {LABEL: "999999999", f"{LABEL}.started": "1"}
MINE = {LABEL: str(os.getpid()), f"{LABEL}.started": process_start(os.getpid())}


class Container:
    def __init__(self, labels: dict[str, str], status: str) -> None:
        self.id = "c"
        self.labels = labels
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
    ("labels", "status", "removed"),
    [
        (GONE | place(), "running", True),
        (MINE | place(), "running", False),
        (MINE | {f"{LABEL}.started": "1"} | place(), "running", True),  # its number was given out again
        (GONE | place() | {f"{LABEL}.namespace": "1"}, "running", False),
        (GONE | place() | {f"{LABEL}.boot": "another"}, "running", False),
        (GONE | place() | {f"{LABEL}.boot": "another"}, "created", False),
        (GONE | place() | {f"{LABEL}.boot": "another"}, "exited", True),
        (GONE, "running", False),
        (GONE, "dead", True),
    ],
)
def test_only_containers_whose_owner_is_known_to_be_gone_are_removed(
    labels: dict[str, str], status: str, removed: bool
) -> None:
    container = Container(labels, status)
    assert (remove_orphans(Client(container)), container.removed) == (["c"] * removed, removed)
