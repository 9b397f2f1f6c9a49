"""The report of a run whose figures were computed by hand, and of runs with little data."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report import charts
from report.page import write_report
from rstar.protocols import UserError
from store.layout import RUN_FORMAT
from store.shards import read_rows, write_rows

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Tables as lists of rows by the id of their section, charts by their id; tags that do not match are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.ids, self.outside, self.places, self.scripts = [], {}, [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.outside += [attributes[name] for name in ("src", "href", "action") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if attributes.get("class") == "chart":
            self.places.append(attributes["id"])
        if tag == "script":
            self.scripts.append("")
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
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data

    @property
    def specs(self):
        """The spec of each embedded chart, by the id of its place."""
        calls = re.findall(r'vegaEmbed\("#(\S+)", (.*), options\);', self.scripts[-1])
        assert len(calls) == self.scripts[-1].count("vegaEmbed(")
        return {place: json.loads(spec) for place, spec in calls}


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
    style = written[0].split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert all(set(spec["data"]) == {"name", "values"} for spec in page.specs.values())


def test_the_page_holds_the_bundle_once_and_embeds_every_chart_in_its_place(written):
    page = Page(written[0])
    assert [script.strip() for script in page.scripts[:-1]] == [charts.bundle().strip()]
    assert list(page.specs) == page.places
    sections = ("coverage", "policy", "system", "ppm", "wrong-steps", "cost", "buckets")
    assert page.places == [f"{section}-chart" for section in sections]


def test_a_chart_shows_the_figures_of_its_table(written):
    rows = Page(written[0]).specs["coverage-chart"]["data"]["values"]
    figures = {(row["name"], row["source"], row["x"]): row["y"] for row in rows}
    assert figures["all", "this run", "round 2"] == 75.0
    assert figures["all", "paper", "round 2"] == 66.6
    assert figures["synthetic", "this run", "round 1"] is None


def test_levels_go_from_all_by_name_to_synthetic(written):
    header = Page(written[0]).tables["coverage"][0]
    levels = [name for name in header[2:] if not name.endswith("paper")]
    assert levels == ["all", "gsm", "math", "olympiad", "synthetic"]


def test_a_tree_shows_visits_q_verdict_and_error(written):
    trees = written[0].split('<section id="trees"')[1]
    assert re.search(r'Answer 1</span>.*?N 1</span>.*?Q \+1\.00</span>.*?class="state right">right', trees, re.DOTALL)
    assert re.search(r'class="state failed">exception.*?ZeroDivisionError: line 1', trees, re.DOTALL)
    assert "What is m1 &lt; &amp; &gt;?" in trees


def test_a_run_without_tables_says_what_is_missing_and_shows_no_number(tmp_path):
    recipe = {"format": RUN_FORMAT, "run": {"name": "mine", "seed": 3}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    path = Path(write_report(tmp_path, out=tmp_path / "elsewhere" / "page.html"))
    page = Page(path.read_text())
    assert "Recipe mine, seed 3." in path.read_text()
    assert all(rows == [] for rows in page.tables.values())
    assert path.read_text().count('class="missing"') == len(page.ids) == 13
    assert page.scripts == []
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
    assert "<script>alert" not in path.read_text() and "{{ 7 * 7 }}" in path.read_text()
    assert (
        "| &lt;script&gt;alert(1)&lt;/script&gt; \\| [bold]x[/bold] {{ 7 * 7 }} new line |"
        in path.with_suffix(".md").read_text()
    )


def test_a_hostile_level_cannot_leave_its_chart(small_run):
    rows = read_rows(small_run.problems("train"), "problems")
    level = '</script><script>alert(1)</script><!-- <script> {{ 7 * 7 }} " \u2028'
    write_rows(small_run.problems("train"), "problems", [{**row, "level": level} for row in rows])
    page = Page(Path(write_report(small_run.root)).read_text())
    assert len(page.scripts) == 2
    assert level in {row["name"] for row in page.specs["coverage-chart"]["data"]["values"]}


def test_the_same_run_gives_the_same_bytes(small_run):
    first = Path(write_report(small_run.root)).read_bytes()
    assert Path(write_report(small_run.root)).read_bytes() == first


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run at"):
        write_report(tmp_path / "nothing")


def test_the_stand_in_for_the_bootstrap_model_is_named_where_it_searched(small_run, written):
    assert "rule-based" not in written[1]
    url = small_run.nodes(1, 0)
    write_rows(url, "nodes", [{**row, "model": "rules"} for row in read_rows(url, "nodes")])
    markdown = Path(write_report(small_run.root)).with_suffix(".md").read_text(encoding="utf-8")
    assert "In round 1 a rule-based writer" in markdown and "236B" in markdown
