"""Importers: good rows are kept, bad ones named with file and line, and a file that cannot be read says so."""

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from domains.registry import find_domain
from problems.cleaning.duplicates import problem_id
from problems.sources.json_lines import ImportResult, import_problems
from rstar.protocols import UserError

MATHEMATICS = find_domain("mathematics")
SHARED = os.environ.get("RSTAR_SHARED_DATA")


def imported(path: Path, **options: object) -> ImportResult:
    return import_problems(path, domain=MATHEMATICS, **options)


def write(path: Path, rows: list[object]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def plain(problem: str, answer: object = "5", **more: object) -> dict[str, object]:
    return {"problem": problem, "answer": answer, **more}


def test_gsm8k_rows_lose_their_worked_lines_and_are_gsm_level(tmp_path):
    path = write(tmp_path / "train.jsonl", [{"question": " How many? ", "answer": "48/2 = <<48/2=24>>24\n#### 1,024"}])
    (problem,) = imported(path).problems
    assert (problem.question, problem.answer, problem.level, problem.source) == ("How many?", "1,024", "gsm", "train")
    assert problem.id == problem_id("How many?")


def test_plain_rows_keep_their_source_and_level_and_take_the_given_level_where_they_have_none(tmp_path):
    rows = [plain("p", 3, source="AIME", level="olympiad"), plain("q", r"\frac12", level=None)]
    path = write(tmp_path / "set.jsonl", rows)
    first, second = imported(path).problems
    assert (first.answer, first.source, first.level) == ("3", "AIME", "olympiad")
    assert (second.answer, second.source, second.level) == (r"\frac12", "set", "math")
    assert [p.level for p in imported(path, level="olympiad").problems] == ["olympiad", "olympiad"]


BAD_ROWS = [
    ("{not json", "not JSON", "not JSON"),
    ('["a list"]', "not JSON", "not a JSON object"),
    ("[" * 100_000, "not JSON", "not JSON"),
    (plain("  "), "empty problem", "no problem text"),
    ({"answer": "5"}, "empty problem", "no problem text"),
    ({"problem": "p"}, "no answer", "no answer"),
    (plain("p", ""), "no answer", "empty"),
    (plain("p", ["1", "2"]), "no answer", "expected text"),
    (plain("p", True), "no answer", "expected text"),
    ({"question": "q", "answer": "so it is 5"}, "no answer", "####"),
    ({"question": "q", "answer": "so it is\n#### "}, "no answer", "empty"),
    (plain("Good?"), "duplicate", "the same problem as line 1, with the answer '4' there"),
    (plain("other", id="g1"), "duplicate", "duplicate id 'g1': first used at line 1"),
    (plain("p", r"\frac{"), "unparseable answer", "cannot be read"),
    (plain("a \ud800"), "not JSON", "surrogate"),
]


@pytest.mark.parametrize(
    ("row", "kind", "reason"), BAD_ROWS, ids=lambda v: v if isinstance(v, str) and len(v) < 40 else "row"
)
def test_a_bad_row_is_named_and_the_good_ones_are_kept(tmp_path, row, kind, reason):
    path = write(tmp_path / "set.jsonl", [plain("Good?", "4", id="g1"), "", row, plain("Also good?")])
    result = imported(path)
    assert [p.question for p in result.problems] == ["Good?", "Also good?"]
    assert (result.num_rows, result.counts) == (3, {kind: 1})
    assert str(result.errors[0]).startswith(f"{path}:3: ") and reason in str(result.errors[0])


def test_strict_names_the_first_bad_row(tmp_path):
    path = write(tmp_path / "set.jsonl", [plain("a", "?!"), plain("b"), "{"])
    with pytest.raises(UserError, match=r"set\.jsonl:1: the ground truth '\?!'"):
        imported(path, strict=True)


def test_bytes_that_are_no_text_are_one_bad_row(tmp_path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(plain("a")).encode() + b"\n\xff\xfe\n")
    result = imported(path)
    assert len(result.problems) == 1 and "not UTF-8" in result.errors[0].reason


def test_a_gzipped_file_is_read_whatever_its_name(tmp_path):
    packed = gzip.compress(json.dumps(plain("a")).encode())
    for name in ("set.jsonl.gz", "set.jsonl"):
        (tmp_path / name).write_bytes(packed)
        assert imported(tmp_path / name).problems[0].source == "set"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "no rows"),
        ("empty.jsonl.gz", b"", "no rows"),
        ("blank.jsonl", b"\n \n", "no rows"),
        ("plain.jsonl.gz", b'{"problem": "a", "answer": "1"}\n', "not a whole gzip file"),
        ("cut.jsonl.gz", gzip.compress(os.urandom(5000))[:-2000], "not a whole gzip file"),
        ("", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(tmp_path, name, content, reason):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as error:
        imported(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_progress_counts_rows_and_ends_at_the_whole(tmp_path):
    path = write(tmp_path / "set.jsonl", [plain(f"p{n}") for n in range(1100)])
    calls: list[tuple[int, float]] = []
    imported(path, progress=lambda rows, share: calls.append((rows, share)))
    assert [rows for rows, _ in calls] == [500, 1000, 1100]
    assert calls[-1][1] == 1.0 and all(0 < share <= 1 for _, share in calls)


@pytest.mark.skipif(not SHARED, reason="RSTAR_SHARED_DATA is not set")
@pytest.mark.parametrize(
    ("name", "num_problems", "num_unparseable"),
    [("gsm8k_train", 7473, 0), ("gsm8k_test", 1319, 0), ("svamp", 1000, 0), ("olympiadbench_en_text", 673, 2)],
)
def test_public_sets_are_imported_whole_in_seconds(name, num_problems, num_unparseable):
    started = time.monotonic()
    result = imported(Path(SHARED) / f"{name}.jsonl.gz")
    assert len(result.problems) == num_problems
    assert result.counts["unparseable answer"] == len(result.errors) == num_unparseable
    assert time.monotonic() - started < 30


def test_questions_without_an_answer_are_read_where_none_is_needed(tmp_path):
    file = tmp_path / "questions.jsonl"
    rows = [{"problem": "1 + 1?"}, {"question": "1 + 2?"}, {"problem": "1 + 3?", "answer": 4}, {"answer": "5"}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = imported(file, needs_answer=False)
    assert [problem.answer for problem in read.problems] == ["", "", "4"]
    assert [error.line for error in read.errors] == [4]
    assert [error.line for error in imported(file).errors] == [1, 2, 4]
