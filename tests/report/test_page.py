"""The report of a run whose figures were computed by hand, and of runs that have next to nothing."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report.page import write_report
from rstar.protocols import UserError
from store.shards import read_rows, write_rows

VOID = {"meta", "br", "line", "circle", "rect", "polyline"}


class Page(HTMLParser):
    """Tables as lists of rows under their section's id; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.ids, self.outside = [], {}, [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.outside += [attributes[name] for name in ("src", "href", "action") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.ids.append(attributes["id"])
            self.tables[self.ids[-1]] = []
        if tag == "tr":
            self.tables[self.ids[-1]].append([])
        if tag in ("td", "th"):
            self.tables[self.ids[-1]][-1].append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[self.ids[-1]][-1][-1] += data


@pytest.fixture
def written(small_run):
    path = Path(write_report(small_run.root))
    return path.read_text(encoding="utf-8"), path.with_suffix(".md").read_text(encoding="utf-8")


def test_figures_computed_by_hand_are_in_the_html(written):
    tables = Page(written[0]).tables
    assert tables["coverage"][2] == [
        *("2", "4", "75.0 %", "66.6 %", "100.0 %", "97.9 %", "100.0 %", "67.4 %", "0.0 %", "56.0 %", "100.0 %")
    ]
    assert tables["policy"][1][:3] == ["0 (base)", "4", "25.0 %"]
    assert tables["policy"][1][-1] == "58.8 %"
    assert tables["system"][-1][:4] == ["2", "system", "8", "100.0 %"]
    assert tables["system"][-1][-2:] == ["86.6 %", "85"]
    assert tables["ppm"][1:] == [["1", "5", "60.0 %", "+0.500"], ["2", "5", "80.0 %", "+0.500"]]
    assert ["1", "rejection-sampled", "8", "3", "37.5 %"] in tables["wrong-steps"]
    assert tables["cost"][-1] == ["1", "all phases", "71.5", "6,912", "3.0 GiB"]
    assert tables["tokens"][1:] == [["1", "gsm", "3", "30.0", "25.0", "2.0"], ["1", "math", "1", "60.0", "–", "2.0"]]
    assert ["2", "math", "0", "1", "0"] in tables["buckets"]
    assert tables["unsolved"][1:] == [["o1", "olympiad", "What is o1 < & >?", "1", "12", "3 of 4"]]


def test_the_markdown_has_the_same_tables(written):
    page, markdown = Page(written[0]), written[1]
    for rows in page.tables.values():
        for row in rows:
            cells = [cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for cell in row]
            assert f"| {' | '.join(cells)} |" in markdown
    assert "- Policy pass@1: **75.0 %**, round 2, from 25.0 % (base)" in markdown


def test_the_page_needs_nothing_from_outside(written):
    page = Page(written[0])
    assert all(link.startswith("#") for link in page.outside)
    assert {link.removeprefix("#") for link in page.outside} == set(page.ids)
    assert "url(" not in written[0] and "@import" not in written[0] and "<script" not in written[0]


def test_a_tree_shows_visits_q_verdict_and_error(written):
    trees = written[0].split('<section id="trees"')[1]
    assert re.search(r'Answer 1</span>.*?N 1</span>.*?Q \+1\.00</span>.*?class="state right">right', trees, re.DOTALL)
    assert re.search(r'class="state failed">exception.*?ZeroDivisionError: line 1', trees, re.DOTALL)
    assert "What is m1 &lt; &amp; &gt;?" in trees


def test_a_run_without_tables_says_what_is_missing_and_shows_no_number(tmp_path):
    (tmp_path / "recipe.json").write_text('{"run": {"name": "mine", "seed": 3}}')
    path = Path(write_report(tmp_path, out=tmp_path / "elsewhere" / "page.html"))
    page = Page(path.read_text())
    assert "Recipe mine, seed 3." in path.read_text()
    assert all(rows == [] for rows in page.tables.values())
    assert path.read_text().count('class="missing"') == len(page.ids) == 13
    assert "%" not in re.sub(r"chance is 50 %|<style>.*</style>", "", path.read_text(), flags=re.DOTALL)
    assert path.with_suffix(".md").exists()


@pytest.mark.parametrize("table", ["problems", "nodes", "trajectories", "sft", "evaluations", "rounds"])
def test_any_one_table_may_be_missing(small_run, table):
    for file in small_run.files(table):
        Path(file).unlink()
    page = Path(write_report(small_run.root)).read_text()
    Page(page)
    assert page.rstrip().endswith("</html>")


def test_a_hostile_question_stays_text(small_run):
    (row,) = [row for row in read_rows(small_run.problems("train"), "problems") if row["id"] == "o1"]
    question = "<script>alert(1)</script> | [bold]x[/bold] {{ 7 * 7 }}\nnew line"
    write_rows(small_run.problems("train"), "problems", [{**row, "question": question}])
    path = Path(write_report(small_run.root))
    assert "<script" not in path.read_text() and "{{ 7 * 7 }}" in path.read_text()
    assert (
        "| &lt;script&gt;alert(1)&lt;/script&gt; \\| [bold]x[/bold] {{ 7 * 7 }} new line |"
        in path.with_suffix(".md").read_text()
    )


def test_the_same_run_gives_the_same_bytes(small_run):
    first = Path(write_report(small_run.root)).read_bytes()
    assert Path(write_report(small_run.root)).read_bytes() == first


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run at"):
        write_report(tmp_path / "nothing")


def test_the_stand_in_for_the_bootstrap_model_is_named_where_it_searched(small_run, written):
    assert "stand-in" not in written[1]
    url = small_run.nodes(1, 0)
    write_rows(url, "nodes", [{**row, "model": "rules"} for row in read_rows(url, "nodes")])
    markdown = Path(write_report(small_run.root)).with_suffix(".md").read_text(encoding="utf-8")
    assert "Round 1 was searched with a rule-based writer" in markdown and "236B" in markdown
