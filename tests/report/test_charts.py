"""Charts: the data and scales of their specs, and what Vega draws of them."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from report import charts
from report.section import Chart, Series

CSS = (Path(charts.__file__).parent / "templates" / "report.css").read_text()


def figures(chart):
    return [(row["name"], row["source"], row["x"], row["y"]) for row in charts.spec(chart)["data"]["values"]]


def drawn(chart, role):
    """The paths that Vega draws for one kind of mark, such as "mark-line", in the order of drawing."""
    root = ET.fromstring(charts.svg(chart))
    groups = [e for e in root.iter() if f"{role} role-mark" in e.get("class", "")]
    return [path for group in groups for path in group]


def box(path):
    """Left, right, top and bottom of a bar."""
    x, y, width, height = map(float, re.match(r"M(.*?),(.*?)h(.*?)v(.*?)h", path.get("d")).groups())
    return x, x + width, y, y + height


def test_a_spec_holds_every_value_beside_its_series_and_round():
    chart = Chart("Both", ["round 1", "round 2"], [Series("all", [0.0, 50.0]), Series("gsm", [70.0, None], 1)])
    assert figures(chart) == [
        ("all", "this run", "round 1", 0.0),
        ("all", "this run", "round 2", 50.0),
        ("gsm", "this run", "round 1", 70.0),
        ("gsm", "this run", "round 2", None),
    ]


def test_the_papers_line_is_dashed_has_the_colour_of_ours_and_lies_below_it():
    ours, theirs = Series("all", [40.0, 50.0], 2), Series("all", [60.0, 67.0], 2, "paper")
    first, second = drawn(Chart("Both", ["round 1", "round 2"], [ours, theirs]), "mark-line")
    assert first.get("stroke-dasharray") == "5,4" and second.get("stroke-dasharray") == "1,0"
    assert first.get("stroke") == second.get("stroke") == "#2c7a4b"


def test_a_tooltip_says_series_source_round_and_value():
    chart = Chart("Tips", ["round 2"], [Series("all", [50.0]), Series("all", [1234.56], source="paper")], unit=" s")
    tips = [row["tip"] for row in charts.spec(chart)["data"]["values"]]
    assert sorted(tips) == ["all (paper), round 2: 1,234.6 s", "all, round 2: 50 s"]


def test_a_missing_value_is_a_gap_and_not_a_zero():
    chart = Chart("Gap", list("abcde"), [Series("all", [10.0, 20.0, None, 30.0, 40.0])], top=100)
    (line,) = drawn(chart, "mark-line")
    assert line.get("d").count("M") == line.get("d").count("L") == 2
    assert len(drawn(chart, "mark-symbol")) == 4
    assert len(drawn(Chart("Gap", list("abc"), [Series("all", [1.0, None, 2.0])], "bars"), "mark-rect")) == 2


@pytest.mark.parametrize("kind", ["lines", "bars", "stacked bars"])
@pytest.mark.parametrize(
    ("values", "last"), [([71.5, 60.0], "80 s"), ([0.0, 0.0], "1.0 s"), ([None, None], "1.0 s"), ([80.0, 81.0], None)]
)
def test_the_y_axis_runs_from_zero_to_a_round_number_above_the_largest_value(kind, values, last):
    picture = charts.svg(Chart("Axis", ["a", "b"], [Series("all", values)], kind, unit=" s"))
    low, high = map(float, re.search(r"Y-axis for a linear scale with values from (\S+) to ([\d.]+)", picture).groups())
    assert low == 0 and high >= max(value or 0 for value in values)
    assert not last or f">{last}</text>" in picture


def test_stacked_bars_stand_on_each_other_in_the_order_of_the_series():
    chart = Chart("Sum", ["r"], [Series("z", [3.0]), Series("a", [1.0], 1)], "stacked bars", unit=" s")
    (left, right, top, bottom), (left2, right2, top2, bottom2) = map(box, drawn(chart, "mark-rect"))
    assert (left, right) == (left2, right2)
    assert bottom2 == pytest.approx(top) and bottom - top == pytest.approx(3 * (bottom2 - top2))


def test_grouped_bars_stand_side_by_side_in_the_order_of_the_series():
    chart = Chart("Beside", ["r"], [Series("z", [3.0]), Series("a", [1.0], 1)], "bars")
    (_, right, _, bottom), (left2, _, _, bottom2) = map(box, drawn(chart, "mark-rect"))
    assert right <= left2 and bottom == bottom2


def test_every_colour_of_a_chart_is_defined_in_light_and_in_dark():
    series = [Series(str(i), [1.0], i) for i in range(charts.NUM_COLOURS + 1)]
    text = str([charts.CONFIG, charts.spec(Chart("Colours", ["r"], [*series, Series("0", [2.0], source="paper")]))])
    for name in set(re.findall(r"var\((--\w+)\)", text)):
        assert CSS.count(f"{name}: ") == 2, name


def test_names_cannot_break_out_of_an_svg_file():
    root = ET.fromstring(charts.svg(Chart('<script>"&', ["<b>"], [Series("</svg><script>", [1.0])])))
    assert {e.tag.split("}")[1] for e in root.iter()} <= {"svg", "g", "path", "rect", "line", "text", "title"}


def test_an_svg_file_needs_no_style_sheet():
    assert "var(" not in charts.svg(Chart("Alone", ["a"], [Series("all", [1.0])]))


def test_the_bundle_cannot_close_its_script():
    assert "vegaEmbed" in charts.bundle() and "</script" not in charts.bundle().lower()
