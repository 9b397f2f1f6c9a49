"""What the fork server relies on: start times of processes, sizes of folders, frames that a step may have written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from sandbox.inside.folders import exceeds, remove
from sandbox.inside.interpreter import HEADER
from sandbox.inside.processes import Inbox, Process, born


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)


def test_a_process_has_one_start_time_and_a_dead_one_has_none(tmp_path: Path) -> None:
    child = sleeper()
    first = born(child.pid)
    assert first
    assert born(child.pid) == first != born(os.getpid())
    child.kill()
    deadline = time.monotonic() + 5
    while born(child.pid) and time.monotonic() < deadline:  # it is a zombie until it is reaped
        time.sleep(0.01)
    assert born(child.pid) == b""
    child.wait()
    assert born(child.pid) == b""


def test_a_process_with_a_reused_id_is_not_killed(tmp_path: Path) -> None:
    child = sleeper()
    ours, theirs = socket.socketpair()
    folder = tmp_path / "work"
    folder.mkdir()
    kept = Process(child.pid, ours, folder, born(child.pid))
    assert kept.is_there()
    taken = replace(kept, born=b"1", channel=theirs)
    assert not taken.is_there()
    taken.kill()
    assert child.poll() is None
    kept.kill()
    assert child.wait(timeout=5) < 0
    assert not folder.exists()


def test_a_folder_is_measured_in_blocks_and_entries(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "file").write_bytes(b"x" * 10_000)
    assert not exceeds(str(tmp_path), max_bytes=1 << 20, max_entries=2)
    assert exceeds(str(tmp_path), max_bytes=1 << 20, max_entries=1)
    assert exceeds(str(tmp_path), max_bytes=8_000, max_entries=2)


def test_an_unreadable_folder_counts_as_too_large_and_is_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(tmp_path)
            if os.geteuid() == 0:  # permissions do not stop root
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            Path("work/closed/below").mkdir(parents=True)
            Path("work/closed/below/file").touch()
            Path("work/closed").chmod(0)
            is_too_large = exceeds("work", max_bytes=1 << 30, max_entries=1000)
            remove("work", ".")
            os._exit(0 if is_too_large and os.listdir(".") == [] else 1)  # noqa: PTH208
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


def test_frames_are_read_in_pieces_and_too_large_ones_are_empty() -> None:
    ours, theirs = socket.socketpair()
    inbox = Inbox(ours, max_bytes=10)
    theirs.sendall(HEADER.pack(3) + b"ab")
    assert inbox.wait(time.monotonic() + 0.05) is None
    theirs.sendall(b"c" + HEADER.pack(11))
    assert inbox.wait(time.monotonic() + 5) == b"abc"
    assert inbox.frame() == b""
    assert inbox.pid == os.getpid()


def test_removing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("x")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "link").symlink_to(tmp_path / "outside")
    remove(str(tmp_path / "work"), str(tmp_path))
    assert (tmp_path / "outside" / "file").read_text() == "x"
    assert not (tmp_path / "work").exists()
