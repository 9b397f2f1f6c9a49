"""One Parquet file: written whole or not at all, equal bytes for equal rows, clear errors."""

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rstar.protocols import UserError
from store.shards import comparable, read_rows, read_table, to_arrow, to_bytes, write_rows

ROW = {"id": "a", "question": "q", "answer": "1", "level": "gsm", "source": "s", "synthetic": False}


def rows(number):
    return [{**ROW, "id": f"{place:05d}"} for place in range(number)]


def only_file(folder):
    (file,) = folder.iterdir()
    return file


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",))), st.booleans()), max_size=8))
def test_written_rows_are_read_back(tmp_path_factory, content):
    url = str(tmp_path_factory.mktemp("shard") / "a" / "problems.parquet")
    given_rows = [
        {**ROW, "id": f"{n}", "question": text, "synthetic": flag, "structure": None, "truth_steps": text}
        for n, (text, flag) in enumerate(content)
    ]
    assert write_rows(url, "problems", given_rows) == len(content)
    assert read_rows(url, "problems") == given_rows


def test_equal_rows_give_equal_bytes_in_any_order_and_file(tmp_path):
    shuffled = rows(500)
    random.Random(1).shuffle(shuffled)
    write_rows(str(tmp_path / "a.parquet"), "problems", rows(500))
    write_rows(str(tmp_path / "b.parquet"), "problems", shuffled)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_runs_are_compared_without_timing_and_placement(small_run):
    one = read_table(small_run.rounds(1, "search"), "rounds")
    slower = to_arrow("rounds", [{**one.to_pylist()[0], "seconds": 99.0, "run": "other"}])
    other = to_arrow("rounds", [{**one.to_pylist()[0], "num_tokens": 99}])
    digest = to_bytes(comparable(one, "rounds"))
    assert to_bytes(comparable(slower, "rounds")) == digest
    assert to_bytes(comparable(other, "rounds")) != digest


def test_a_lone_surrogate_is_stored_as_a_question_mark(small_run):
    rows = read_rows(small_run.trajectories(1), "trajectories")
    write_rows(small_run.trajectories(1), "trajectories", [{**rows[0], "steps": ["a\ud800b"], "answer": "\udfff"}])
    (row,) = read_rows(small_run.trajectories(1), "trajectories")
    assert (row["steps"], row["answer"]) == (["a?b"], "?")


def test_the_file_has_the_sentences_of_its_columns(tmp_path):
    write_rows(str(tmp_path / "a.parquet"), "problems", rows(1))
    field = pq.read_schema(tmp_path / "a.parquet").field("answer")
    assert field.metadata[b"doc"].startswith(b"Ground truth")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({**ROW, "colour": "red"}, "problems: unknown column colour"),
        ({**ROW, "answer": None}, "problems: column answer is missing"),
        ({k: v for k, v in ROW.items() if k != "level"}, "problems: column level is missing"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_rows(str(tmp_path / "a.parquet"), "problems", [ROW, row])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("old", [None, rows(3)])
def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path, old):
    folder = tmp_path / "trees"
    target = folder / "problems.parquet"
    if old:
        write_rows(str(target), "problems", old)
    program = (
        "import os, signal, sys\n"
        "from store.shards import write_rows\n"
        "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"write_rows(sys.argv[1], 'problems', [{ROW!r}])\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(target)], cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in folder.iterdir() if path != target] == [".tmp"]
    assert list(folder.glob("*.parquet")) == ([target] if old else [])
    if old:
        assert [row["id"] for row in read_rows(str(target), "problems")] == ["00000", "00001", "00002"]


def test_a_full_disk_is_an_error_of_one_line_and_leaves_no_file(tmp_path):
    """A file-size limit makes the write fail half-way, as a full disk does."""
    write_rows(str(tmp_path / "a.parquet"), "problems", rows(1))
    before = (tmp_path / "a.parquet").read_bytes()
    program = (
        "import resource, signal, sys\n"
        "from store.shards import write_rows\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"row = {ROW!r}\n"
        "write_rows(sys.argv[1], 'problems', [{**row, 'id': str(n * 7919 % 10007)} for n in range(5000)])\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.parquet")]
    failed = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert "cannot write" in failed.stderr.splitlines()[-1]
    assert only_file(tmp_path).read_bytes() == before


def test_the_error_for_a_full_disk_names_the_file_and_the_cause(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    from store.files import failure

    try:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")
    except OSError as error:
        assert error.errno == errno.ENOSPC
        complaint = failure("write", str(tmp_path / "a.parquet"), error)
    assert isinstance(complaint, UserError)
    assert "a.parquet: the disk is full; free some space" in str(complaint)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*nothing\.parquet: no such file"):
        read_table(str(tmp_path / "nothing.parquet"), "nodes")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PAR1junkPAR1"]
)
def test_a_corrupt_file_is_named(tmp_path, damage):
    path = tmp_path / "a.parquet"
    write_rows(str(path), "problems", rows(10))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"cannot read .*a\.parquet: not a whole Parquet file; delete it"):
        read_table(str(path), "problems")


def test_another_tables_file_is_refused(small_run):
    with pytest.raises(UserError, match=r"no column shard, problem_id, tree.*not a nodes table"):
        read_table(small_run.rounds(1, "sft"), "nodes")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="permission denied"):
        write_rows(str(tmp_path / "a.parquet"), "problems", rows(1))


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "trees").write_text("")
    with pytest.raises(UserError, match="a part of the path is a file"):
        write_rows(str(tmp_path / "trees" / "a.parquet"), "problems", rows(1))
