"""Charts as Vega-Lite specs, which Vega draws in the page.

Colours are the custom properties of `templates/report.css`, so that a chart follows the page from light to dark.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from report.section import THIS_RUN, Chart, Series

NUM_COLOURS = 8
HEIGHT = 260  # pixels
STATIC_WIDTH = 600  # pixels; in the page a chart is as wide as its container

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "title": None,
        "labelColor": "var(--soft)",
        "labelFontSize": 12,
        "labelPadding": 8,
        "gridColor": "var(--line)",
    },
    "axisX": {"labelAngle": 0, "grid": False},
    "axisY": {"tickCount": 5},
    "legend": {
        "orient": "bottom",
        "title": None,
        "labelColor": "var(--ink)",
        "labelFontSize": 13,
        "labelLimit": 0,
        "symbolStrokeWidth": 3,
        "columnPadding": 18,
        "rowPadding": 4,
        "layout": {"bottom": {"anchor": "start", "direction": "vertical"}},
    },
}


def spec(chart: Chart) -> dict[str, Any]:
    """The Vega-Lite spec of a chart, with its data inside; CONFIG styles it."""
    # The last rows are drawn on top: the run's own lines.
    series = sorted(enumerate(chart.series), key=lambda numbered: numbered[1].source == THIS_RUN)
    rows = [
        {"name": one.name, "source": one.source, "place": place, "x": x, "y": y, "tip": _tip(one, x, y, chart.unit)}
        for place, one in series
        for x, y in zip(chart.xs, one.values, strict=True)
    ]
    # Named, because Altair would move data without a name out of the chart.
    base = alt.Chart(alt.InlineData(values=rows, name="figures")).encode(
        y=_y(chart), color=_colour(chart), tooltip="tip:N"
    )
    drawn = _lines(base, chart) if chart.kind == "lines" else _bars(base, chart)
    found = drawn.properties(width="container", height=HEIGHT, description=chart.title).to_dict()
    del found["config"]  # Altair's own, which would override CONFIG
    return found


def _lines(base: alt.Chart, chart: Chart) -> alt.LayerChart:
    sources = list(dict.fromkeys([THIS_RUN, *(one.source for one in chart.series)]))
    dashes = [[1, 0]] + [[5, 4]] * (len(sources) - 1)
    legend = alt.Legend(symbolType="stroke", symbolSize=500, symbolStrokeColor="var(--ink)", symbolStrokeWidth=2)
    own = alt.when(alt.datum.source == THIS_RUN)
    base = base.encode(x=alt.X("x:O", scale=alt.Scale(domain=list(chart.xs))))
    lines = base.mark_line(invalid="break-paths-filter-domains").encode(
        strokeDash=alt.StrokeDash(
            "source:N", scale=alt.Scale(domain=sources, range=dashes), legend=legend if len(sources) > 1 else None
        ),
        strokeWidth=own.then(alt.value(2.5)).otherwise(alt.value(1.5)),
    )
    points = base.mark_point(filled=True, opacity=1).encode(size=own.then(alt.value(65)).otherwise(alt.value(25)))
    return lines + points


def _bars(base: alt.Chart, chart: Chart) -> alt.Chart:
    places = alt.Scale(domain=list(chart.xs), paddingInner=0.4, paddingOuter=0.8)
    base = base.mark_bar().encode(x=alt.X("x:O", scale=places))
    if chart.kind == "bars":
        return base.encode(xOffset=alt.XOffset("name:N", sort=[one.name for one in chart.series]))
    return base.encode(order="place:Q")


def _y(chart: Chart) -> alt.Y:
    fitted = chart.top is None and any(value for one in chart.series for value in one.values)
    scale = alt.Scale(zero=True, nice=True) if fitted else alt.Scale(domain=[0, chart.top or 1])
    stack = "zero" if chart.kind == "stacked bars" else None
    return alt.Y("y:Q", scale=scale, stack=stack, axis=alt.Axis(labelExpr=f"datum.label + '{chart.unit}'"))


def _colour(chart: Chart) -> alt.Color:
    colours = {one.name: f"var(--s{one.colour % NUM_COLOURS})" for one in chart.series}
    symbol = {"symbolType": "stroke", "symbolSize": 500} if chart.kind == "lines" else {"symbolType": "square"}
    columns = max(2, STATIC_WIDTH // (60 + 7 * max(map(len, colours))))  # a letter is about 7 pixels wide
    return alt.Color(
        "name:N",
        scale=alt.Scale(domain=list(colours), range=list(colours.values())),
        legend=alt.Legend(columns=columns, **symbol),
    )


def _tip(series: Series, x: str, y: float | None, unit: str) -> str:
    name = series.name if series.source == THIS_RUN else f"{series.name} ({series.source})"
    return f"{name}, {x}: {'–' if y is None else f'{y:,.1f}'.removesuffix('.0') + unit}"


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as JavaScript for a <script> of the page; takes seconds, once a process."""
    return vl_convert.javascript_bundle().replace("</script", "<\\/script")


def svg(chart: Chart) -> str:
    """A chart as an SVG file of its own, in the colours of the light page."""
    drawn = vl_convert.vegalite_to_svg(
        {**spec(chart), "width": STATIC_WIDTH, "padding": 12}, config={**CONFIG, "background": "var(--card)"}
    )
    return re.sub(r"var\((--\w+)\)", lambda found: _light_colours()[found[1]], drawn) + "\n"


@functools.cache
def _light_colours() -> dict[str, str]:
    css = (Path(__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    return dict(re.findall(r"(--\w+): ([^;]+);", css[: css.index("}")]))
