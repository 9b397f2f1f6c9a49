"""The terminal shows the same figures as the page."""

import io
import json

from rich.console import Console

from report.tables import final_tables, round_table
from store.layout import RUN_FORMAT


def shown(*tables):
    console = Console(width=160, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return [" ".join(line.replace("│", " ").split()) for line in console.export_text().splitlines()]


def test_a_round_stands_beside_the_paper(small_run):
    lines = shown(round_table(small_run.root, 2))
    assert "Coverage · all 75.0 % 66.6 %" in lines
    assert "Coverage · olympiad 0.0 % 56.0 %" in lines
    assert "Policy pass@1 · all 75.0 % 73.6 %" in lines
    assert "Policy, majority and system · system 8 · all 100.0 % 86.6 %" in lines
    assert "PPM · Accuracy 80.0 % –" in lines


def test_a_round_that_has_not_run_shows_no_number(small_run):
    assert "nothing measured yet – –" in shown(round_table(small_run.root, 9))


def test_the_final_tables_have_the_figures_of_the_report(small_run):
    lines = shown(*final_tables(small_run.root))
    assert "1 step-verified 4 1 25.0 %" in lines
    assert "o1 olympiad What is o1 < & >? 1 12 3 of 4" in lines


def test_the_work_of_the_engines_is_shown(small_run):
    assert "1 4,000 75.0 % 1,234 80.0 % 1,000 90.0 % 20.0 % 5.25" in shown(*final_tables(small_run.root))


def test_what_expansions_waited_for_is_shown(small_run):
    assert "1 17 2,250.0 66.7 % 22.2 % 11.1 % 20.0 %" in shown(*final_tables(small_run.root))


def test_the_terminal_says_what_is_missing(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"format": RUN_FORMAT}))
    lines = shown(*final_tables(tmp_path))
    assert "No phase has finished yet." in lines
