"""docs/recipe.md and docs/tables.md say what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.generate import REFERENCES
from flows.recipe import Recipe


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.name)
def test_a_reference_is_what_the_code_makes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == REFERENCES[path](), f"{path.name} is out of date: run `make docs`"


def test_every_key_of_a_recipe_says_what_it_means() -> None:
    sections = Recipe.model_json_schema()["$defs"].items()
    silent = [f"{name}.{key}" for name, section in sections for key, field in section["properties"].items()
              if not field.get("description")]  # fmt: skip
    assert not silent
