"""A shard that is killed goes on inside its trees: the same table, and nothing that was answered is asked again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store import shards
from store.layout import Run
from tasks.problems import generated_rows
from tasks.rollouts import journal_of

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("search_a_shard.py")


def start(root: Path, in_flight: int) -> subprocess.Popen[bytes]:
    """Search the only shard of a run in a process of its own."""
    root.mkdir(exist_ok=True)
    shards.write_rows(
        Run(root).problems("train"),
        "problems",
        generated_rows({"gsm": 4, "math": 3, "olympiad": 3}, seed=3, split="train"),
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, SCRIPT, root, asked_file(root), str(in_flight)], env=environment)


def asked_file(root: Path) -> Path:
    return root.parent / f"{root.name}.asked"


def asked(root: Path) -> list[str]:
    return asked_file(root).read_text().splitlines()


def kill_after(process: subprocess.Popen[bytes], journal: Path, num_entries: int) -> int:
    """Kill the process -9 once its journal holds so many expansions; returns how many whole ones it left."""
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + num_entries:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return journal.read_bytes().count(b"\n") - 1


def table(root: Path) -> bytes:
    content = shards.read_table(Run(root).nodes(1, 0), "nodes")
    return shards.to_bytes(shards.comparable(content, "nodes"))


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_killed_shard_ends_with_the_same_table_and_asks_only_for_the_rest(tmp_path: Path, in_flight: int) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole, in_flight).wait() == 0
    total = len(asked(whole))
    journal = Path(journal_of(Run(cut), 1, 0))

    known = 0
    for share in (0.3, 0.7):  # killed twice
        process = start(cut, in_flight)
        known = kill_after(process, journal, int(share * total))
        assert not Path(Run(cut).nodes(1, 0)).exists()
    with journal.open("ab") as file:
        file.write(b'["00ff')  # as if the machine had stopped in the middle of a line
    before = len(asked(cut))
    assert start(cut, in_flight).wait() == 0

    assert table(cut) == table(whole)
    assert len(asked(cut)) - before == total - known
    assert set(asked(cut)) == set(asked(whole))
    assert not journal.exists() and not Path(journal_of(Run(whole), 1, 0)).exists()
