"""The seam of domains is real: nothing but domains/mathematics knows mathematics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from domains.programs.domain import DOMAIN, END_OF_PROGRAM, UnitTests
from domains.registry import DOMAINS, find_domain
from rstar.protocols import Execution, UserError, Verdict

SCRIPT = Path(__file__).with_name("run_programs.py")
BASE = SCRIPT.parents[2] / "miniature" / "base" / "weights"
FIRST, LAST = "def f():\n    return 1\n<end_of_step>", "assert f() == 1\n<end_of_program>"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    if not (BASE / "config.json").is_file():
        pytest.skip("no tiny base: `make tiny-base`")
    environment = os.environ | {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_mathematics_cannot_be_imported_while_programs_are_searched(result: dict[str, Any]) -> None:
    assert result["blocked"]


def test_a_program_is_right_where_its_unit_tests_pass_in_the_sandbox(result: dict[str, Any]) -> None:
    correct = {(text, flag) for text, _, flag, _ in result["nodes"] if END_OF_PROGRAM in text and flag is not None}
    assert {flag for _, flag in correct} == {True, False}
    assert any("return 2 * x" in answer for answer in result["answers"])


def test_steps_that_are_no_python_are_kept_as_invalid_nodes(result: dict[str, Any]) -> None:
    verdicts = {text.split("\n<")[0]: verdict for text, verdict, _, _ in result["nodes"]}
    assert verdicts["def double(x)\n    pass"] == "exception"


def test_the_right_function_has_the_higher_q_value_and_is_preferred(result: dict[str, Any]) -> None:
    q = {text: value for text, _, _, value in result["nodes"] if text.endswith("<end_of_step>")}
    assert q["def double(x):\n    return 2 * x\n<end_of_step>"] > q["def double(x):\n    return x * x\n<end_of_step>"]
    chosen, rejected, margin = result["pairs"][0]
    assert "2 * x" in chosen[0] and "x * x" in rejected[0] and margin > 0


def test_sft_learns_the_whole_program_and_nothing_of_the_prompt(result: dict[str, Any]) -> None:
    assert result["learned"] == result["best"]


def test_engines_write_and_score_steps_of_the_domain(result: dict[str, Any]) -> None:
    assert len(set(result["scores"])) == 2 and all(-1 <= score <= 1 for score in result["scores"])
    assert result["ppm_scores"] == result["scores"]


@pytest.mark.parametrize(
    ("text", "prefix", "reason"),
    [
        (FIRST, [], ""),
        (LAST, [FIRST], ""),
        ("x = 1", [], "end marker"),
        (FIRST + FIRST, [], "end marker"),
        ("\n<end_of_step>", [], "no code"),
        (FIRST, [FIRST, LAST], "ended already"),
    ],
)
def test_a_step_out_of_form_is_malformed_for_a_stated_reason(text: str, prefix: list[str], reason: str) -> None:
    malformed = DOMAIN.read(text, prefix).malformed
    assert (malformed == "") if not reason else (reason in malformed)


def test_the_answer_of_the_last_step_is_the_whole_program() -> None:
    step = DOMAIN.read(LAST, [FIRST])
    assert step.answer == "def f():\n    return 1\nassert f() == 1" and not step.continues


def test_steps_of_a_response_join_to_it_byte_for_byte() -> None:
    assert DOMAIN.split(FIRST + LAST) == [FIRST, LAST]
    assert "".join(DOMAIN.split(FIRST + "x = ")) == FIRST + "x = "


async def test_the_judge_gives_its_checkpoint_back() -> None:
    class Executor:
        def __init__(self) -> None:
            self.released: list[str] = []

        async def run(self, checkpoint: str | None, code: str) -> Execution:
            return Execution(Verdict.OK, checkpoint="c1")

        async def release(self, checkpoint: str) -> None:
            self.released.append(checkpoint)

    executor = Executor()
    assert await UnitTests(executor).correct("x = 1", "assert x") is True
    assert executor.released == ["c1"]


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_a_domain_is_found_by_its_name(name: str) -> None:
    domain = find_domain(name)
    assert domain.name == name and domain.stop_strings and domain.prompt("What?").count("What?") == 1


def test_an_unknown_domain_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match="allowed: mathematics, programs"):
        find_domain("chess")


def test_ground_truths_that_are_no_python_are_told() -> None:
    assert DOMAIN.readable(["assert x == 1", "assert (", " "]) == [True, False, False]
