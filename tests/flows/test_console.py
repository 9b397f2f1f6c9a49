"""What a run holds is printed as it is, whatever brackets are in it."""

from __future__ import annotations

import pytest

from flows.console import print_rows


def test_a_cell_with_brackets_is_not_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"text": "a[i] = b[/j]", "q": 0.5}], title="runs/[x]")
    printed = capsys.readouterr().out
    assert "a[i] = b[/j]" in printed and "runs/[x]" in printed and "0.500" in printed
