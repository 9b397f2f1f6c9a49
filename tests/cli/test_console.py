"""Tables print the text of steps unchanged, except for control characters."""

from __future__ import annotations

import pytest

from cli.console import print_rows


def test_a_cell_with_brackets_is_not_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"text": "a[i] = b[/j]", "q": 0.5}], title="runs/[x]")
    printed = capsys.readouterr().out
    assert "a[i] = b[/j]" in printed and "runs/[x]" in printed and "0.500" in printed


def test_control_characters_of_a_step_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"output": "a\x1b]52;c;aGk=\x07\x9b2J\r\x00\tb\nc"}])
    printed = capsys.readouterr().out
    assert not set("\x1b\x07\x9b\r\x00") & set(printed)
    assert "\\x1b]52;c;aGk=\\x07\\x9b2J\\r\\x00" in printed
