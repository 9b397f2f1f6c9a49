"""Which containers a start clears away, on an engine that others use too."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.container import LABEL, labels, remove_orphans

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
        (MINE | {f"{LABEL}.started": "1"}, "running", True),  # its number was given out again
        (GONE | HERE | {f"{LABEL}.namespace": "1"}, "running", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "running", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "created", False),
        (GONE | HERE | {f"{LABEL}.boot": "another"}, "exited", True),
        (GONE, "running", False),
        (GONE, "dead", True),
    ],
)
def test_only_containers_whose_owner_is_known_to_be_gone_are_removed(
    carried: dict[str, str], status: str, removed: bool
) -> None:
    container = Container(carried, status)
    assert (remove_orphans(Client(container)), container.removed) == (["c"] * removed, removed)
