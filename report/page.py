"""The report of a run: one self-contained HTML file, and the same tables as Markdown.

Section 4: its tables and figures for this run, beside the paper's. It can be written while the run is going on.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2

from report import charts
from report.explorer import examples
from report.section import Section
from report.sections import all_sections, headlines
from store import files, questions
from store.catalog import open_catalog
from store.layout import Run


def write_report(run_root: str | Path, out: str | Path | None = None) -> str:
    """Write the report into the run's folder, or to `out` with the .md beside it; return the HTML file's path."""
    run = Run(run_root)
    html, markdown = render(run)
    target = run.report("html") if out is None else str(out)
    files.write_bytes(target, html.encode())
    files.write_bytes(target.removesuffix(".html") + ".md", markdown.encode())
    return target


def render(run: Run) -> tuple[str, str]:
    """The report as HTML and as Markdown."""
    with open_catalog(run.root) as con:
        ask = functools.cache(functools.partial(questions.run, con))
        content = {
            "name": run.name,
            "origin": origin(run),
            "headlines": headlines(ask),
            "sections": all_sections(ask),
            "trees": examples(ask("example_trees")),
        }
    specs = {section.id: charts.spec(section.chart) for section in content["sections"] if section.chart}
    drawing = {"specs": specs, "config": charts.CONFIG, "bundle": charts.bundle() if specs else ""}
    html = _template("report.html.j2", escape=True).render(content, **drawing)
    return html, _template("report.md.j2").render(content)


def origin(run: Run) -> str:
    """The run's recipe and seed, as a sentence."""
    if not files.exists(run.recipe):
        return ""
    recipe = json.loads(files.read_bytes(run.recipe))["run"]
    return f"Recipe {recipe['name']}, seed {recipe['seed']}."


def _template(name: str, *, escape: bool = False) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _cell
    environment.filters["rule"] = _rule
    return environment.get_template(name)


def _cell(text: str) -> str:
    """Escape text so that it neither ends a cell of a Markdown table nor reads as HTML."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _rule(section: Section) -> str:
    """The line under a Markdown table's header: words are aligned left, numbers right."""
    return "|".join("---" if i < section.num_text_columns else "--:" for i in range(len(section.header)))
