"""The recipe: every number of a run, read from TOML with overrides, or filled in by a person in Prefect's form.

A wrong key is a UserError of one line: which key, what it got, what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from domains.registry import DOMAINS
from flows.recipe_errors import explain
from flows.recipe_sections import (
    EngineSection,
    EvaluationSection,
    ModelSection,
    ProblemsSection,
    RoundSection,
    RunSection,
    SandboxSection,
    SearchSection,
    Section,
    SynthesisSection,
)
from flows.recipe_training import PpmSection, SftSection
from rstar.protocols import UserError
from store.layout import RUN_FORMAT
from tasks.lib.engines import RULES

RECIPES = Path(__file__).parent / "recipes"
IN_FLIGHT = {"max_in_flight", "max_tokens_in_flight"}  # keys of [search] that do not change results


class Recipe(Section):
    """A whole run."""

    format: Literal[RUN_FORMAT] = RUN_FORMAT
    """Version of the run's files. Leave it out."""

    domain: Literal[*DOMAINS] = "mathematics"
    """The kind of task: its step format, prompts and judge."""

    run: RunSection = RunSection()
    problems: ProblemsSection
    model: ModelSection = ModelSection()
    engine: EngineSection = EngineSection()
    search: SearchSection = SearchSection()
    rounds: list[RoundSection] = Field(min_length=1)
    sft: SftSection = SftSection()
    ppm: PpmSection = PpmSection()
    evaluation: EvaluationSection = EvaluationSection()
    synthesis: SynthesisSection = SynthesisSection()
    sandbox: SandboxSection = SandboxSection()

    @model_validator(mode="after")
    def first_round_has_nothing_before(self) -> Self:
        if self.rounds[0].policy == "previous" or self.rounds[0].scorer == "previous":
            raise ValueError("rounds.1: 'previous' names the round before, and there is none; policy may be "
                             "'bootstrap' or 'base', scorer 'none'")  # fmt: skip
        for number, (before, after) in enumerate(zip(self.rounds, self.rounds[1:], strict=False), start=2):
            for key, model in (("scorer", "ppm"), ("policy", "policy")):
                if getattr(after, key) == "previous" and not getattr(before, f"train_{model}"):
                    raise ValueError(
                        f"rounds.{number}.{key}: 'previous' needs rounds.{number - 1}.train_{model} = true"
                    )
        return self

    @model_validator(mode="after")
    def the_miniature_world_is_mathematics(self) -> Self:
        if self.domain == "mathematics":
            return self
        problems, rounds = self.problems, self.rounds
        wants = {
            "model.bootstrap = 'rules'": self.model.bootstrap == RULES and any(r.policy == "bootstrap" for r in rounds),
            "problems.train": any(problems.train.values()),
            "problems.test": any(problems.test.values()),
            "synthesis.num_problems": bool(self.synthesis.num_problems),
        }
        for key, wanted in wants.items():
            if wanted:
                raise ValueError(f"{key}: only domain = 'mathematics' has generated problems and a rule-based writer; "
                                 "give files of problems and a model")  # fmt: skip
        return self

    @property
    def hash(self) -> str:
        """Identifies everything that can change a result: not the run's name, the division of work or the addresses."""
        placement = {"run": {"name", "shards", "workers", "dispatch"}, "search": IN_FLIGHT, "engine": True}
        content = self.model_dump(mode="json", exclude=placement)
        if self.engine.kind != "transformers":
            content["engine"] = self.engine.kind
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(path: Path | str, overrides: list[str] | None = None) -> Recipe:
    """Read a TOML file, or a shipped recipe by its name, with `key=value` overrides such as rounds.1.num_rollouts=4."""
    file = Path(path)
    if not file.is_file() and (RECIPES / f"{path}.toml").exists():
        file = RECIPES / f"{path}.toml"
    if not file.is_file():
        shipped = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.toml")))
        raise UserError(f"recipe {path}: no such file; give a TOML file or one of: {shipped}")
    try:
        content = tomllib.loads(file.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"recipe {file}: not valid TOML: {error}") from None
    except OSError as error:
        raise UserError(f"recipe {file}: cannot be read ({error.strerror})") from None
    for override in overrides or []:
        apply_override(content, override)
    return check_recipe(content, name=str(file))


def check_recipe(content: dict[str, Any], *, name: str) -> Recipe:
    """Validate, and name the first wrong key in one line."""
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"recipe {name}: {explain(error, Recipe)}") from None


def apply_override(content: dict[str, Any], override: str) -> None:
    """Set one dotted key; rounds count from 1."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: expected key=value, such as rounds.1.num_rollouts=4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    place: Any = content
    try:
        for part in path:
            numbered = dict(enumerate(place, start=1)) if isinstance(place, list) else None
            place = numbered[int(part)] if numbered else place.setdefault(part, {})
        place[last] = value
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"--set {override}: there is no key {key}") from None
