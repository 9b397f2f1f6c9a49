"""A killed shard continues within its trees: the table is the same, and no answered request is repeated."""

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
from tasks.rollouts import shard_journal

REPOSITORY = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("search_a_shard.py")


def start(root: Path, in_flight: int) -> subprocess.Popen[bytes]:
    """Search the only shard of a run in a separate process."""
    root.mkdir(exist_ok=True)
    shards.write_rows(
        Run(root).problems("train"),
        "problems",
        generated_rows({"gsm": 4, "math": 3, "olympiad": 3}, seed=3, split="train"),
    )
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen([sys.executable, SCRIPT, root, requests_file(root), str(in_flight)], env=environment)


def requests_file(root: Path) -> Path:
    return root.parent / f"{root.name}.requests"


def requests(root: Path) -> list[str]:
    return requests_file(root).read_text().splitlines()


def kill_after(process: subprocess.Popen[bytes], journal: Path, num_entries: int) -> int:
    """Kill the process by SIGKILL once its journal has `num_entries` expansions; return how many it has then."""
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
def test_a_killed_shard_ends_with_the_same_table_and_repeats_no_request(tmp_path: Path, in_flight: int) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, in_flight).wait() == 0
    total = len(requests(whole))
    journal = Path(shard_journal(Run(killed), 1, 0))

    known = 0
    for share in (0.3, 0.7):  # it is killed twice
        process = start(killed, in_flight)
        known = kill_after(process, journal, int(share * total))
        assert not Path(Run(killed).nodes(1, 0)).exists()
    with journal.open("ab") as file:
        file.write(b'["00ff')  # as if the machine had stopped while writing a line
    before = len(requests(killed))
    assert start(killed, in_flight).wait() == 0

    assert table(killed) == table(whole)
    assert len(requests(killed)) - before == total - known
    assert set(requests(killed)) == set(requests(whole))
    assert not journal.exists() and not Path(shard_journal(Run(whole), 1, 0)).exists()
