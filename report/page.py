"""The report of a run: one HTML file that needs nothing else, and the same tables as Markdown.

Section 4's tables and figures for this run, beside the paper's. It can be written at any time of a run.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jinja2

from report.explorer import examples
from report.section import Section
from report.sections import all_sections, headlines
from store import files
from store import questions as queries
from store.catalog import open_catalog
from store.layout import Run


def write_report(run_root: str | Path, out: str | Path | None = None) -> str:
    """Write the report beside the run's tables, or at `out` (its .md beside it); return the HTML file's path."""
    run = Run(run_root)
    html, markdown = render(run)
    target = run.report("html") if out is None else str(out)
    files.write_bytes(target, html.encode())
    files.write_bytes(target.removesuffix(".html") + ".md", markdown.encode())
    return target


def render(run: Run) -> tuple[str, str]:
    """The report as HTML and as Markdown."""
    with open_catalog(run.root) as con:
        ask = functools.cache(functools.partial(queries.run, con))
        content = {
            "name": run.name,
            "origin": origin(run),
            "headlines": headlines(ask),
            "sections": all_sections(ask),
            "trees": examples(ask("example_trees")),
        }
    return _template("report.html.j2", escape=True).render(content), _template("report.md.j2").render(content)


def origin(run: Run) -> str:
    """Say of which recipe and seed the run is."""
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
    """Text that cannot break out of a Markdown table's cell, nor be taken for HTML."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _rule(section: Section) -> str:
    """The line under a Markdown table's header: words to the left, numbers to the right."""
    return "|".join("---" if i < section.num_text_columns else "--:" for i in range(len(section.header)))
