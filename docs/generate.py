"""Write the two references, docs/recipe.md and docs/tables.md, from the code that they describe.

`make docs` runs this. tests/docs/test_references.py compares the result with the committed files.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from flows.recipe import Recipe
from flows.run_recipe import PLACEMENT
from store import questions, schema

Json = dict[str, Any]
DOCS = Path(__file__).parent
GENERATED = "<!-- Written by `make docs` from {source}. Change it there. -->"

RECIPE_INTRODUCTION = """\
# Recipe keys

A recipe is a TOML file with the sections below. `rstar evolve` takes a file, or a shipped recipe by its name. `--set`
changes one key; rounds count from 1:

    rstar evolve smoke --out runs/try --set rounds.1.num_rollouts=4 --set run.seed=7

A wrong key, type or value ends the command with one line that names the key, what it got and what is allowed.
`flows/recipes/paper.toml` has the paper's values (arXiv 2501.04519), with the place of each.

A run keeps its recipe in `recipe.json`, and resuming it with another value is an error. The exceptions:

- The keys of `[engine]` other than `kind`: a run that has begun takes over their new values.
- {free}: a run that has begun ignores their new values.
"""

TABLES_INTRODUCTION = """\
# Tables of a run

A run's tables are Parquet files in its folder. `rstar sql` asks them. Any DuckDB client can open `catalog.duckdb`,
which has a view for each table:

    rstar sql "SELECT round, count(*) FROM nodes WHERE verdict <> 'ok' GROUP BY round ORDER BY round"
    rstar sql coverage --run runs/smoke

The key of a table identifies and sorts its rows. A column is never null unless it says so. Two runs of the same recipe
and seed can differ in columns marked *timing*. The columns `run` and `shard` only say where a row was made.
"""


def recipe_reference() -> str:
    """Return docs/recipe.md: the sections of the recipe's JSON schema, in its order."""
    whole = Recipe.model_json_schema()
    alone = {key: field for key, field in whole["properties"].items() if _section_of(field) is None}
    free = sorted(key for key in PLACEMENT if not key.startswith("engine.") and key != "run.shards")
    introduction = RECIPE_INTRODUCTION.format(free=", ".join(f"`{key}`" for key in free))
    parts = [GENERATED.format(source="flows/recipe_sections.py and flows/recipe_training.py"), introduction]
    parts.append(f"## Before the first section\n\n{_keys(alone, whole['required'])}")
    for key, field in whole["properties"].items():
        if name := _section_of(field):
            section = whole["$defs"][name]
            heading = f"[[{key}]]" if field.get("type") == "array" else f"[{key}]"
            about = _line(section["description"])
            parts.append(f"## `{heading}`\n\n{about}\n\n{_keys(section['properties'], section.get('required', ()))}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section_of(field: Json) -> str | None:
    """Return the name of the section that a field of the recipe holds, or None."""
    reference = field.get("$ref") or field.get("items", {}).get("$ref")
    return reference and reference.rsplit("/", 1)[-1]


def _keys(fields: Json, required: Any) -> str:
    rows = [
        (f"`{key}`", _type(field), "required" if key in required else _default(field["default"]), field["description"])
        for key, field in fields.items()
    ]
    return _table(("key", "type", "default", "meaning"), rows)


def _type(field: Json) -> str:
    """Say in words which values a field of a JSON schema takes."""
    if "anyOf" in field:
        return next(_type(each) for each in field["anyOf"] if each.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if field["type"] == "array":
        return f"list of {_type(field['items'])}"
    if field["type"] == "object":
        return f"table with the keys {_type(field['propertyNames'])}; values: {_type(field['additionalProperties'])}"
    words = {"string": "text", "boolean": "`true`, `false`"}.get(field["type"], field["type"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    limits = [f"{sign} {field[name]}" for name, sign in signs.items() if name in field]
    pattern = [f"that matches `{field['pattern']}`"] if "pattern" in field else []
    return " ".join([words, *filter(None, [" and ".join(limits)]), *pattern])


def _default(value: Any) -> str:
    if value is None:
        return "none"
    if value == {}:
        return "`{}`"
    return f"`{json.dumps(value)}`"


def tables_reference() -> str:
    """Return docs/tables.md: the tables, the further views and the shipped questions."""
    sentences = _comments(inspect.getsource(schema), r"(?m)((?:^#: .*\n)+)[A-Z]+ = Table\(\s*\"(\w+)\"", "#:")
    parts = [GENERATED.format(source="store/schema.py, store/views.sql and store/questions/"), TABLES_INTRODUCTION]
    for table in schema.TABLES.values():
        rows = [(f"`{c.name}`", _arrow_type(c.type), " ".join(_sentences(c))) for c in table.columns]
        key = ", ".join(f"`{name}`" for name in table.key)
        about = f"{sentences[table.name]}\n\nFiles: `{table.glob}`. Key: {key}."
        parts.append(f"## {table.name}\n\n{about}\n\n{_table(('column', 'type', 'meaning'), rows)}")
    views = (Path(schema.__file__).parent / "views.sql").read_text(encoding="utf-8")
    found = _comments(views, r"(?m)((?:^-- .*\n)+)CREATE (?:VIEW|MACRO) (\w+)", "--")
    rows = [(f"`{name}`", sentence) for name, sentence in found.items()]
    parts.append(f"## Further views and macros\n\n{_table(('name', 'meaning'), rows)}")
    asked = [(f"`{name}`", questions.text(name).splitlines()[0].removeprefix("-- ")) for name in questions.names()]
    parts.append(f"## Shipped questions\n\n`rstar sql NAME` asks one.\n\n{_table(('name', 'question'), asked)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _sentences(column: schema.Column) -> Iterator[str]:
    yield column.doc
    if column.nullable and "null" not in column.doc:
        yield "Can be null."
    if column.timing:
        yield "*Timing.*"


def _arrow_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list of {_arrow_type(kind.value_type)}"
    return {"int64": "integer", "double": "float", "bool": "boolean"}.get(str(kind), str(kind))


def _comments(source: str, pattern: str, mark: str) -> dict[str, str]:
    """Return by name the comment above each thing that `pattern` finds."""
    return {name: _line(comment.replace(f"{mark} ", "")) for comment, name in re.findall(pattern, source)}


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(_line(cell).replace('|', '&#124;') for cell in line)} |" for line in lines)


def _line(text: str) -> str:
    return " ".join(text.split())


REFERENCES = {DOCS / "recipe.md": recipe_reference, DOCS / "tables.md": tables_reference}

if __name__ == "__main__":
    for path, write in REFERENCES.items():
        path.write_text(write(), encoding="utf-8")
