"""The recipe: every number of a run, as a Pydantic model that Prefect shows as a form and TOML files fill in.

The table of ALGORITHM settings is the paper's Section 3.4 and Appendix A; `recipes/paper.toml` names the source of
each value. An unknown or impossible key is a UserError of one line: which key, what it got, what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from domains.registry import DOMAINS
from flows.recipe_errors import explain
from rstar.protocols import UserError
from store.layout import RUN_FORMAT
from tasks.lib.engines import ENGINES

RECIPES = Path(__file__).parent / "recipes"
IN_FLIGHT = {"max_in_flight", "max_tokens_in_flight"}  # of [search]: how much at once, not what

Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the recipe: no key that is not listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class RunSection(Section):
    """How the work is cut and where it runs: nothing here but the seed may change a result."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, le=4_000_000)  # times 1000 it must still be a seed of NumPy's
    shards: Count = 4
    workers: Count = 1  # shards in flight at once
    dispatch: Literal["subflow", "deployment"] = "subflow"


class ProblemsSection(Section):
    """What is asked: generated problems by level, or files of real problems."""

    train: dict[str, CountOrNone] = {}
    test: dict[str, CountOrNone] = {}
    train_file: str | None = None
    test_file: str | None = None
    level: str | None = None  # of rows in files that name none
    max_train: Count | None = None  # the first so many of a file
    max_test: Count | None = None

    @model_validator(mode="after")
    def one_source(self) -> Self:
        for split, by_level, file in (("train", self.train, self.train_file), ("test", self.test, self.test_file)):
            if bool(sum(by_level.values())) == bool(file):
                raise ValueError(f"give either {split} (counts by level) or {split}_file, one of them")
        return self


class ModelSection(Section):
    """The models that are neither searched for nor trained here."""

    base: str = "miniature/base/weights"  # checkpoint directory or Hugging Face name
    bootstrap: str = "rules"  # `rules`: the built-in writer of steps; else a checkpoint or Hugging Face name
    bootstrap_prompt: Literal["few_shot", "zero_shot"] = "few_shot"  # of a bootstrap that is a model
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_new_tokens: Count = 2048
    max_context: Count = 4096  # tokens of a prompt and its next step
    max_batch: Count = 64


class EngineSection(Section):
    """What answers for the models: this process, vLLM servers that are started for them, or endpoints already there.

    An address stands for one replica, and what is there must serve the very model that is asked for. Those of
    `bootstrap_urls` are asked in rounds with policy = "bootstrap".
    """

    kind: Literal[*ENGINES] = "transformers"
    bootstrap_urls: list[str] = []
    policy_urls: list[str] = []
    ppm_urls: list[str] = []
    replicas: Count = 1  # of the servers that are started: data parallel
    tensor_parallel: Count = 1  # GPUs of each
    policy_gpu_memory: Share = 0.55  # of each GPU
    ppm_gpu_memory: Share = 0.35
    max_in_flight: Count = 64  # requests a replica; a PPM's has two
    timeout_seconds: Positive = 600.0  # of one request
    patience_seconds: Positive = 900.0  # with replicas that do not answer

    @model_validator(mode="after")
    def endpoints_are_asked(self) -> Self:
        if self.kind == "transformers" and (self.bootstrap_urls or self.policy_urls or self.ppm_urls):
            raise ValueError("kind = 'transformers' asks no endpoint; with addresses say kind = 'vllm' or 'openai'")
        return self


class SearchSection(Section):
    """What is the same in every round's search (Section 3.2)."""

    exploration: Positive = 2.0
    max_depth: Count = 16
    max_in_flight: Count = 64  # trees of a shard that are searched at once
    max_tokens_in_flight: Count | None = None  # asked of the policy at once, prompts included; None: any number
    rollouts_in_flight: Count = 1  # of one tree; more than one, with virtual losses, gives other trees


class RoundSection(Section):
    """One round of self-evolution (Section 3.4)."""

    policy: Literal["bootstrap", "base", "previous"]
    scorer: Literal["none", "previous"] = "none"
    annotation: Literal["terminal", "ppm"] = "terminal"
    num_rollouts: Count
    num_candidates: Count
    temperature: Positive = 1.0
    hard_rollouts: CountOrNone = 16  # more, for problems without a correct trajectory
    unsolved_rollouts: list[Count] = []  # then, for those still unsolved, one by one
    extra_trees: CountOrNone = 0  # for those still unsolved, trees with other seeds
    train_policy: bool = True  # false: search and evaluate only
    train_ppm: bool = True

    @model_validator(mode="after")
    def annotation_has_scorer(self) -> Self:
        if (self.annotation == "ppm") != (self.scorer == "previous"):
            raise ValueError("annotation = 'ppm' goes with scorer = 'previous', and 'terminal' with 'none'")
        if self.train_ppm and not self.train_policy:
            raise ValueError("train_ppm = true needs train_policy = true: the PPM starts from the round's policy")
        return self


class TrainingSection(Section):
    """What SFT and PPM training have in common."""

    apart: ClassVar[frozenset[str]] = frozenset({"accumulate"})  # what a training process is not told

    epochs: Positive
    max_tokens: Count | None = None  # fewer epochs where they hold more tokens than this
    learning_rate: Positive = 7e-6
    embedding_learning_rate: Positive | None = None  # muon only: of embeddings, norms and head; by default half of it
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_ratio: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Share = 0.999
    optimizer: Literal["adamw", "muon"] = "adamw"
    max_length: Count = 4096
    accumulate: bool = False  # train on the sets of the rounds before as well
    threads: CountOrNone = 0  # of each training; 0: as many as there are, or its share of them

    @model_validator(mode="after")
    def used_rates(self) -> Self:
        if self.embedding_learning_rate is not None and self.optimizer != "muon":
            raise ValueError("embedding_learning_rate goes with optimizer = 'muon': adamw has one rate for all")
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """What a training process is told: how it learns, not which rows it is given or how many such there are."""
        return self.model_dump(exclude=set(self.apart))


class SftSection(TrainingSection):
    """Policy training (Section 3.4, Appendix A)."""

    apart = TrainingSection.apart | {"num_per_problem", "min_correct_synthetic", "num_averaged"}

    epochs: Positive = 2.0
    batch_tokens: Count = 128 * 4096  # in rows of max_length
    packing: bool = True  # as many trajectories a row as fit; False: one
    neftune_noise_alpha: Positive | None = None  # noise on the embeddings (NEFTune); L is the row's length
    num_averaged: Count = 1  # trainings whose weights are averaged (arXiv 2203.05482)
    num_per_problem: Count = 2
    min_correct_synthetic: Share = 0.5


class PpmSection(TrainingSection):
    """Process preference model training (Section 3.3)."""

    apart = TrainingSection.apart | {"num_per_side", "min_margin", "min_edit_distance"}

    epochs: Positive = 1.0
    group_batch: Count = 512  # pairs; all of a problem's go together, also where they are more
    loss: Literal["ppm", "pqm", "orm"] = "ppm"
    center_rewards_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0  # keeps a pair within the tanh
    num_per_side: Count = 2  # positives and negatives of a node, and of a problem's trajectories
    min_margin: Annotated[float, Field(ge=0, le=2)] = 0.5
    min_edit_distance: CountOrNone = 20
    shuffle_labels: bool = False  # the control: targets dealt out at random

    @model_validator(mode="after")
    def centres_pairs(self) -> Self:
        if self.center_rewards_coefficient and self.loss != "ppm":
            raise ValueError(
                f"center_rewards_coefficient goes with loss = 'ppm', not with {self.loss!r}: it is of pairs"
            )
        return self


class EvaluationSection(Section):
    """What is measured after each round (Tables 3 to 6)."""

    num_rollouts: Count = 8
    num_candidates: Count = 32
    top_k: Count | None = None  # best trajectories with a weighted vote; None: all
    temperature: Positive = 1.0
    majority: bool = True  # over as many tokens as the search used
    methods: list[Literal["best_of_n", "beam"]] = []  # further ones, beside the search
    beam_width: Count = 4  # trajectories that the beam keeps
    system_problems: CountOrNone | None = None  # asked of the whole system in all rounds but the last; None: all
    base: bool = True  # row 0 of the tables
    pair_problems: CountOrNone = 60  # held-out problems; PPMs are measured on the first policy's mistakes there
    pair_rollouts: Count = 4
    pair_candidates: Count = 6


class SynthesisSection(Section):
    """New problems from solved ones (Section 3.4, problem synthesis)."""

    num_problems: CountOrNone = 0  # a round, from round 2 on
    num_solutions: Count = 10
    min_agreeing: Count = 3
    temperature: Positive = 1.0

    @model_validator(mode="after")
    def can_agree(self) -> Self:
        if self.min_agreeing > self.num_solutions:
            raise ValueError(f"min_agreeing = {self.min_agreeing} is more than num_solutions = {self.num_solutions}")
        return self


class SandboxSection(Section):
    """Where steps run."""

    provider: Literal["auto", "docker", "gvisor", "local"] = "auto"
    time_limit_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    memory_limit_mb: Count = 512


class Recipe(Section):
    """A whole run."""

    format: Literal[RUN_FORMAT] = RUN_FORMAT  # of the run's files
    domain: Literal[*DOMAINS] = "mathematics"
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

    @property
    def hash(self) -> str:
        """Names what may change a result: not the run's name, how the work is cut and admitted, where engines are."""
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
