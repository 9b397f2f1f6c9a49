"""The command line: a user's mistake is one line on stderr and exit code 2, never a traceback."""

from __future__ import annotations

import errno
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import main as cli
from cli.runs import find_run
from rstar.protocols import UserError
from store import questions as queries

REPOSITORY = Path(__file__).parent.parent.parent


def rstar(*arguments: str, folder: Path = REPOSITORY, typed: str = "") -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cli.main import main; main()"
    command = [sys.executable, "-c", code, str(REPOSITORY), *arguments]
    return subprocess.run(command, cwd=folder, input=typed, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evolve", "nowhere.toml"], ["nowhere.toml", "no such file"]),
        (["evolve", "smoke", "--set", "rounds.1.num_rolouts=4"], ["rounds.1.num_rolouts", "mean num_rollouts?"]),
        (["evolve", "smoke", "--set", "model.base=./nowhere"], ["./nowhere", "make tiny-base"]),
        (["evolve", "smoke", "--set", "model.base=runs/x/models/round=1/policy"], ["no checkpoint in runs/x"]),
        (["evolve", "."], ["recipe .", "no such file"]),
        (["evolve", "smoke", "--out", "s3://bucket/run"], ["s3://bucket/run", "folder"]),
        (["sql", "SELECT 1"], ["no run in runs/", "rstar demo"]),
        (["sql", "-- a comment first\nSELECT 1", "--run", "nowhere"], ["run nowhere", "no such folder"]),
        (["report", "nowhere"], ["run nowhere", "no such folder"]),
        (["solve", "2 + 2?", "--run", "."], ["recipe.json is missing"]),
        (["solve"], ["one question", "--file"]),
        (["solve", "2 + 2?", "--file", "x.jsonl"], ["one question", "--file"]),
        (["solve", "2 + 2?", "--budget", "lots"], ["budget 'lots'", "16", "20000t", "30s"]),
        (["solve", "2 + 2?", "--budget", "0s"], ["budget '0s'", "above 0"]),
        (["serve", "--budget", "1.5"], ["budget '1.5'", "trajectories"]),
        (["serve", "--run", "nowhere"], ["run nowhere", "no such folder"]),
        (["serve", "--run", "."], ["recipe.json is missing"]),
        (["import", "nowhere.jsonl", "--out", "x.parquet"], ["nowhere.jsonl"]),
    ],
)  # fmt: skip
def test_a_users_mistake_is_one_line_without_a_traceback(
    arguments: list[str], words: list[str], tmp_path: Path
) -> None:
    done = rstar(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("rstar: ")
    assert [word for word in words if word not in done.stderr] == []
    assert not list(tmp_path.iterdir())


def test_import_names_bad_rows_and_keeps_good_ones_unless_strict(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    rows = [json.dumps({"question": "What is 20 + 22?", "answer": "20 + 22 = 42\n#### 42"}), "{not json"]
    file.write_text("\n".join(rows) + "\n")
    out = tmp_path / "set.parquet"

    strict = rstar("import", str(file), "--out", str(out), "--strict")
    assert strict.returncode == 2 and f"{file}:2" in strict.stderr
    assert not out.exists()

    kept = rstar("import", str(file), "--out", str(out))
    assert kept.returncode == 0, kept.stderr
    assert f"{file}:2" in kept.stderr
    assert out.exists()


def test_a_file_without_a_usable_row_is_an_error_and_writes_nothing(tmp_path: Path) -> None:
    file, out = tmp_path / "set.jsonl", tmp_path / "set.parquet"
    file.write_text("{not json\n[]\n")
    done = rstar("import", str(file), "--out", str(out))
    assert done.returncode == 2 and "none of its 2 rows" in done.stderr.splitlines()[-1]
    assert not out.exists()


def test_an_import_does_not_overwrite_its_own_file(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    done = rstar("import", str(file), "--out", str(tmp_path / "." / "set.jsonl"))
    assert done.returncode == 2 and "that is the file to import" in done.stderr
    assert file.read_text().startswith('{"problem"')


def test_a_run_is_found_by_folder_name_or_age_and_for_solving_by_its_trained_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new").mkdir()
    for age, name in ((3, "trained"), (2, "old"), (1, "new"), (0, "broken")):
        files = [Path("runs") / name / file for file in ("recipe.json", "problems/train.parquet")]
        if name == "trained":
            files.append(Path("runs") / name / "models" / "round=1" / "ppm" / "manifest.json")
        if name == "broken":  # before its problems were drawn
            files.pop()
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        os.utime(files[0], (1e9 - age, 1e9 - age))
    assert find_run(None) == find_run("new") == find_run("runs/new") == "runs/new"
    assert find_run(None, trained=True) == "runs/trained"
    with pytest.raises(UserError, match="run nowhere: no such folder"):
        find_run("nowhere")


def test_doctor_checks_everything_that_the_platform_can_use() -> None:
    done = rstar("doctor")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("Docker", "GPU", "Prefect", "S3", "disk", "memory"))


def test_a_prefect_server_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = rstar("evolve", "smoke", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("rstar: PREFECT_API_URL: http://127.0.0.1:9/api")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_full_disk_outside_the_store_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/results")

    monkeypatch.setattr(cli, "app", full)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1 and "/results" in printed and "free some space" in printed


def test_the_help_of_sql_names_every_shipped_question() -> None:
    listed = (cli.sql.__doc__ or "").partition("Shipped questions:")[2]
    assert set(listed.replace(".", "").replace(",", "").split()) == set(queries.names())


@pytest.mark.parametrize(
    ("seed", "overrides", "folder"),
    [
        (None, ["run.seed=3"], "runs/demo"),
        (0, ["run.seed=3", "run.seed=0"], "runs/demo"),
        (2, ["run.seed=2"], "runs/demo-2"),
    ],
)
def test_demo_overrides_the_seed_only_if_one_is_given(
    monkeypatch: pytest.MonkeyPatch, seed: int | None, overrides: list[str], folder: str
) -> None:
    calls: list[tuple[object, ...]] = []
    monkeypatch.setattr("cli.evolve.run_recipe", lambda *arguments: calls.append(arguments))
    cli.demo(seed=seed, out=None, recipe="demo", set=[key for key in overrides if key == "run.seed=3"])
    assert calls == [("demo", folder, overrides)]


def sandboxed(*arguments: object) -> subprocess.CompletedProcess[str]:
    return rstar("sandbox", *map(str, arguments), "--provider", "local")


def test_an_attack_without_rows_or_without_an_output_file_is_one_line(tmp_path: Path) -> None:
    rows, empty = tmp_path / "rows.jsonl", tmp_path / "empty.jsonl"
    row = json.dumps({"id": "a", "code": "print(1)"}) + "\n"
    rows.write_text(row)
    empty.write_text("[1]\n\n")
    for arguments, words in (
        ([empty], ["empty.jsonl: no usable row"]),
        ([rows, "--out", rows], ["--out", "input file", "name another one"]),
        ([rows, "--out", tmp_path / "nowhere" / "out.jsonl"], ["--out", "No such file or directory"]),
        ([rows, "--out", tmp_path], ["--out", "Is a directory"]),
    ):
        ended = sandboxed("attack", *arguments)
        assert ended.returncode == 2, ended
        assert all(word in ended.stderr for word in words), ended.stderr
        assert "Traceback" not in ended.stderr
    assert rows.read_text() == row


def test_results_of_rows_that_ran_are_kept_and_bad_rows_are_counted(tmp_path: Path) -> None:
    rows, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    rows.write_text("\ufeff" + json.dumps({"id": "a", "code": "print(1)"}) + '\n{"id": 1}\n')
    ended = sandboxed("attack", rows, "--out", out)
    assert ended.returncode == 0, ended
    assert "rows.jsonl:2: not a row {id, code} (no 'code')" in ended.stderr
    assert "1 of 1 rows run, 1 left out, 0 escapes" in ended.stdout
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == ["a"]


def test_json_has_the_whole_output_and_a_file_may_have_another_encoding(tmp_path: Path) -> None:
    step = tmp_path / "step.py"
    step.write_bytes(b"\xef\xbb\xbfprint('\\x1b[2J' + 'y' * 30_000)\n")
    ended = sandboxed("run", step, "--json")
    assert json.loads(ended.stdout)["output"] == "\x1b[2J" + "y" * 30_000
    shown = sandboxed("run", step)
    assert "\x1b" not in shown.stdout and "\\x1b[2J" in shown.stdout and "more characters" in shown.stdout
    step.write_bytes(b"# -*- coding: latin-1 -*-\nprint(len('\xe9'))\n")
    assert json.loads(sandboxed("run", step, "--json").stdout)["output"] == "1"
    assert "3600" in sandboxed("run", step, "--seconds", "inf").stderr


def test_a_file_that_cannot_be_run_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "step:x:.py"
    for data, words in (
        (b"# coding: rot13\nprint(1)\n", "not a text encoding"),
        (b"#" * (2**20 + 1), "longer than"),
        (b"print('\xe9')", "give a Python file in UTF-8"),
    ):
        file.write_bytes(data)
        ended = sandboxed("run", file)
        assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended
        assert words in ended.stderr and "step:x:.py" in ended.stderr


def test_a_step_comes_from_standard_input_and_is_shown_as_it_is() -> None:
    ended = rstar("sandbox", "run", "-", "--provider", "local", typed="print('root:x:0 :smile: [b]')")
    assert ended.returncode == 0 and "root:x:0 :smile: [b]" in ended.stdout, ended


def test_a_bad_row_is_named_with_the_reason(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    wrong = ["[" * 100_000, "null", '{"id": 1, "code": 5}', '{"id": null, "code": "x"}', "{", ""]
    rows.write_text("\n".join([*wrong, '{"id": 1, "code": "x = 1"}', ""]))
    ended = sandboxed("attack", rows)
    assert "1 of 1 rows run, 5 left out" in ended.stdout, ended
    words = ["not JSON", "not an object", "'code' is 5, not text", "'id' is null, not text", "not JSON"]
    for number, (line, word) in enumerate(zip(ended.stderr.splitlines()[:5], words, strict=True), start=1):
        assert f"rows.jsonl:{number}: not a row" in line and word in line


def test_an_attack_that_cannot_start_keeps_earlier_results(tmp_path: Path) -> None:
    rows, out, packed = tmp_path / "rows.jsonl", tmp_path / "out.jsonl", tmp_path / "rows.jsonl.gz"
    rows.write_text('{"id": 1, "code": "x = 1"}\n')
    out.write_text("before\n")
    ended = rstar("sandbox", "attack", str(rows), "--out", str(out), "--provider", "nothing")
    assert (ended.returncode, out.read_text()) == (2, "before\n"), ended
    damaged = bytearray(gzip.compress(b"".join(b'{"id": %d, "code": "%d"}\n' % (n, n**9) for n in range(999))))
    damaged[500:540] = bytes(40)
    packed.write_bytes(damaged)
    ended = sandboxed("attack", packed)
    assert (
        ended.returncode == 2
        and "rows.jsonl.gz: cannot be read" in ended.stderr
        and len(ended.stderr.splitlines()) == 1
    )
    ended = sandboxed("attack", rows, "--out", "/dev/full")
    assert ended.returncode == 2 and "--out /dev/full: cannot be written" in ended.stderr, ended
