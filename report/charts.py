"""Line and bar charts as inline SVG, coloured by the page's style sheet so that they follow light and dark.

Every point and bar has a tooltip, and every chart a label; the same numbers stand in a table beside it. A value that
is None is a gap, never a zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 34
NUM_COLOURS = 6


@dataclass(frozen=True, slots=True)
class Series:
    """One line, or one colour of bars; `reference` draws it dashed, as the paper's figures are."""

    name: str
    values: Sequence[float | None]
    colour: int = 0
    reference: bool = False


def line_chart(
    label: str, xs: Sequence[str], series: Sequence[Series], *, unit: str = " %", top: float | None = 100
) -> str:
    """Lines over `xs`, from zero to `top` (None: the largest value)."""
    scale = _Scale(top or _round_up(_largest(series)))
    steps = max(1, len(xs) - 1)
    places = [LEFT + 24 + (WIDTH - LEFT - RIGHT - 48) * i / steps if len(xs) > 1 else WIDTH / 2 for i in range(len(xs))]
    parts = [*scale.grid(unit), *_labels(xs, places)]
    # The run's own lines lie over the paper's.
    for one in sorted(series, key=lambda s: not s.reference):
        points = [(x, scale.y(v), v, at) for x, v, at in zip(places, one.values, xs, strict=True) if v is not None]
        style = _style(one)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in points)
        parts.append(f'<polyline class="line {style}" points="{path}"/>')
        for x, y, value, at in points:
            tip = escape(f"{one.name}, {at}: {_number(value)}{unit}")
            radius = 3 if one.reference else 4.5
            parts.append(
                f'<circle class="dot {style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{tip}</title></circle>'
            )
    return _figure(label, parts, series)


def bar_chart(
    label: str,
    xs: Sequence[str],
    series: Sequence[Series],
    *,
    unit: str = " %",
    top: float | None = None,
    stacked: bool = False,
) -> str:
    """A group of bars an entry of `xs`, side by side or stacked, from zero to `top` (None: the largest value)."""
    sums = [sum(s.values[i] or 0.0 for s in series) for i in range(len(xs))]
    scale = _Scale(top or _round_up(max(sums, default=0.0) if stacked else _largest(series)))
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(xs))
    width = min(56.0, slot * 0.7 / (1 if stacked else max(1, len(series))))
    parts = scale.grid(unit)
    for i, at in enumerate(xs):
        x = LEFT + slot * (i + 0.5) - width * (1 if stacked else len(series)) / 2
        base = 0.0
        for one in series:
            value = one.values[i]
            if value:
                y, height = scale.y(base + value), scale.y(base) - scale.y(base + value)
                tip = escape(f"{one.name}, {at}: {_number(value)}{unit}")
                parts.append(
                    f'<rect class="bar {_style(one)}" x="{x:.1f}" y="{y:.1f}" width="{width - 2:.1f}" '
                    f'height="{height:.1f}"><title>{tip}</title></rect>'
                )
                base += value if stacked else 0.0
            x += 0 if stacked else width
    parts += _labels(xs, [LEFT + slot * (i + 0.5) for i in range(len(xs))])
    return _figure(label, parts, series)


@dataclass(frozen=True, slots=True)
class _Scale:
    top: float

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top

    def grid(self, unit: str) -> list[str]:
        parts = []
        for i in range(5):
            value = self.top * i / 4
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}{unit}</text>'
            )
        return parts


def _labels(xs: Sequence[str], places: Sequence[float]) -> list[str]:
    return [
        f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(text)}</text>'
        for text, x in zip(xs, places, strict=True)
    ]


def _figure(label: str, parts: Sequence[str], series: Sequence[Series]) -> str:
    legend = "".join(f'<li><span class="key {_style(one)}"></span>{escape(one.name)}</li>' for one in series)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
        f'<figcaption>{escape(label)}<ul class="legend">{legend}</ul></figcaption></figure>'
    )


def standalone_svg(figure: str) -> str:
    """A figure as an SVG file of its own, for places without the page's style sheet; its legend is drawn below."""
    inside = re.search(r"<svg[^>]*>(.*)</svg>", figure, re.DOTALL)
    names = re.findall(r'<li><span class="key (s\d)[^"]*"></span>(.*?)</li>', figure)
    assert inside is not None
    legend = "".join(
        f'<g class="{style}"><rect x="{LEFT + 300 * (i % 2)}" y="{HEIGHT + 14 + 20 * (i // 2)}" width="18" height="4" '
        f'fill="currentColor"/><text class="tick" x="{LEFT + 26 + 300 * (i % 2)}" y="{HEIGHT + 20 + 20 * (i // 2)}">'
        f"{name}</text></g>"
        for i, (style, name) in enumerate(names)
    )
    height = HEIGHT + 20 + 20 * ((len(names) + 1) // 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">'
        f"<style>{_ALONE}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>{inside[1]}{legend}</svg>\n'
    )


_ALONE = (
    ".grid{stroke:#e2dfd8}.tick{fill:#5b6470;font-size:12px}.line{fill:none;stroke:currentColor;stroke-width:2.5}"
    ".dot{fill:currentColor;stroke:#fff;stroke-width:1.5}.s0{color:#1f4e79}.s1{color:#c2571a}.s2{color:#2c7a4b}"
    ".s3{color:#8a3a86}.s4{color:#a98600}.s5{color:#6b7280}"
)


def _style(series: Series) -> str:
    return f"s{series.colour % NUM_COLOURS}{' reference' if series.reference else ''}"


def _largest(series: Sequence[Series]) -> float:
    return max((v for s in series for v in s.values if v is not None), default=0.0)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten, so that the quarters read well."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)


def _number(value: float) -> str:
    return f"{value:,.1f}".removesuffix(".0")


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return f"{value:g}"
