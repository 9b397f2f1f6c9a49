"""Charts: places and sizes that can be worked out by hand."""

import re
import xml.etree.ElementTree as ET

from report.charts import BOTTOM, HEIGHT, TOP, Series, bar_chart, line_chart, standalone_svg


def elements(figure, tag, of=""):
    return [e for e in ET.fromstring(figure).iter(tag) if of in e.get("class", "")]


def test_a_point_lies_at_its_share_of_the_height_and_says_its_value():
    figure = line_chart("Half", ["round 1", "round 2"], [Series("all", [0.0, 50.0])])
    low, middle = elements(figure, "circle")
    assert float(low.get("cy")) == HEIGHT - BOTTOM
    assert float(middle.get("cy")) == (TOP + HEIGHT - BOTTOM) / 2
    assert middle.find("title").text == "all, round 2: 50 %"


def test_a_missing_value_is_a_gap_and_not_a_zero():
    figure = line_chart("Gap", ["a", "b", "c"], [Series("all", [10.0, None, 30.0])])
    assert len(elements(figure, "circle")) == 2
    assert "0 %" not in [e.find("title").text for e in elements(figure, "circle")]


def test_stacked_bars_stand_on_each_other():
    figure = bar_chart("Sum", ["r"], [Series("a", [3.0]), Series("b", [1.0], 1)], unit=" s", stacked=True)
    first, second = elements(figure, "rect")
    assert float(first.get("height")) == 3 * float(second.get("height"))
    assert float(second.get("y")) + float(second.get("height")) == float(first.get("y"))
    assert float(second.get("y")) == TOP


def test_the_axis_ends_at_a_round_number_above_the_largest_value():
    for largest, top in ((71.5, "80 s"), (3.0, "4 s"), (0.3, "0.4 s"), (123456, "200k s"), (0.0, "1 s")):
        ticks = re.findall(r'text-anchor="end">([^<]*)<', bar_chart("x", ["r"], [Series("a", [largest])], unit=" s"))
        assert ticks[-1] == top, largest


def test_names_cannot_break_out_of_the_svg():
    figure = line_chart('<script>"&', ["<b>"], [Series("<i>", [1.0])])
    assert ET.fromstring(figure).find("svg").get("aria-label") == '<script>"&'
    assert not elements(figure, "script") and not elements(figure, "b") and not elements(figure, "i")


def test_a_standalone_picture_has_the_lines_their_names_and_no_style_sheet_of_the_page():
    figure = line_chart("Both", ["a", "b"], [Series("one & two", [10.0, 20.0]), Series("three", [30.0, None], 1)])
    picture = standalone_svg(figure)
    root = ET.fromstring(picture)
    assert len([e for e in root.iter() if e.tag.endswith("circle")]) == 3
    assert [e.text for e in root.iter() if e.tag.endswith("text")][-2:] == ["one & two", "three"]
    assert "var(" not in picture
