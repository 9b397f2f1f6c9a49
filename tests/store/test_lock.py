"""Only one evolution works in a folder at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rstar.protocols import UserError
from store.lock import alone_in


def test_a_folder_is_locked_until_the_holding_process_dies(tmp_path: Path) -> None:
    code = "import sys; from store.lock import alone_in\nwith alone_in(sys.argv[1]): print('in', flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "in\n"
        with pytest.raises(UserError, match="another run is at work in this folder"), alone_in(str(tmp_path / "run")):
            raise AssertionError("two at once")
        with alone_in(str(tmp_path / "another")):
            other.kill()
    with alone_in(str(tmp_path / "run")):
        pass


def test_the_lock_file_is_hidden_and_a_second_lock_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with alone_in(str(tmp_path / "run")):
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        with pytest.raises(UserError), alone_in(str(tmp_path / "run")):
            raise AssertionError("two at once")


def test_an_object_store_has_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with alone_in("s3://bucket/run"), alone_in("s3://bucket/run"):
        assert not list(tmp_path.iterdir()), "nor a folder of that name here"
