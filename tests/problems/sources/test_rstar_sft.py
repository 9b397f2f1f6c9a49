"""The reference's SFT examples load as steps, byte for byte."""

import json
import os
from pathlib import Path

import pytest

from domains.registry import find_domain
from problems.sources.rstar_sft import import_reference_sft
from rstar.protocols import UserError

MATHEMATICS = find_domain("mathematics")
SHARED = os.environ.get("RSTAR_SHARED_DATA")
RESPONSE = (
    "<code>\n# Step 1: add\nx = 2 + 2\n<end_of_step>\n\n# Now print the final answer\nprint(x)\n<end_of_code>\n"
    "<output>4<end_of_output>\n<answer>It is \\boxed{4}.<end_of_answer>\n"
)


def sft(response: str, query: str = "q") -> str:
    return json.dumps([{"query": query, "response": response}])


def test_an_example_becomes_a_problem_and_its_rendered_steps(tmp_path):
    path = tmp_path / "sft.json"
    path.write_text(sft(RESPONSE, query="2 + 2?"))
    (example,) = import_reference_sft(path, domain=MATHEMATICS)
    assert (example.problem.question, example.problem.answer, len(example.steps)) == ("2 + 2?", "4", 3)
    assert "".join(example.steps) == RESPONSE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "not JSON"),
        ("{}", "expected a JSON list"),
        ("[1]", "example 1 has no query"),
        (sft(RESPONSE[:60]), "example 1 does not end"),
        (sft(RESPONSE.removesuffix("<end_of_answer>\n")), "example 1 does not end"),
        (sft(RESPONSE.replace("\\boxed{4}", "4")), "example 1 does not end"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path, content, reason):
    path = tmp_path / "sft.json"
    path.write_text(content)
    with pytest.raises(UserError, match=reason):
        import_reference_sft(path, domain=MATHEMATICS)


@pytest.mark.skipif(not SHARED, reason="RSTAR_SHARED_DATA is not set")
def test_the_published_examples_load_byte_for_byte():
    path = Path(SHARED) / "reference_samples" / "sft_data_examples.json"
    examples = import_reference_sft(path, domain=MATHEMATICS)
    assert ["".join(e.steps) for e in examples] == [row["response"] for row in json.loads(path.read_bytes())]
    assert len(examples) == 8
