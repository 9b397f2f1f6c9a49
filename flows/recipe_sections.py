"""The sections of a recipe but for training: every key with its type, its default and what it means.

The docstring below a key is its meaning in Prefect's form and in docs/recipe.md. It names the paper's value where there
is one, with its section in arXiv 2501.04519; recipes/paper.toml holds those values.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from miniature.problems import LEVEL_NAMES
from tasks.lib.engines import ENGINES

Level = Literal[*LEVEL_NAMES]  # of generated problems; those of a file have any
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the recipe. A key that is not listed is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunSection(Section):
    """How the work is divided and where it runs. Only the seed changes results."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run. Its folder is `runs/NAME`, unless `--out` names another one."""

    seed: int = Field(0, ge=0, le=4_000_000)  # a thousand times the seed must still be a seed of NumPy
    """Seed of everything that is drawn: problems, searches and training."""

    shards: Count = 4
    """Parts into which the problems of a round are divided. A shard is the unit of work and of retry. A run keeps its
    number of shards."""

    workers: Count = 1
    """Shards that are searched at the same time."""

    dispatch: Literal["subflow", "deployment"] = "subflow"
    """Where a shard runs. `subflow`: in the process of its round. `deployment`: as a flow run of its own deployment, on
    any worker, so that it can be retried alone."""


class ProblemsSection(Section):
    """The training and test problems: generated ones by level, or files of real problems. Give exactly one of the two
    for each split. Paper: 747k problems with a final answer (Section 4.1)."""

    train: dict[Level, CountOrNone] = {}
    """Generated training problems of each level."""

    test: dict[Level, CountOrNone] = {}
    """Generated test problems of each level."""

    train_file: str | None = None
    """File of training problems: JSON Lines, plain or gzipped, or the Parquet file that `rstar import` writes."""

    test_file: str | None = None
    """File of test problems, in the same forms. Paper: MATH-500 and other benchmarks (Section 4.1)."""

    level: str | None = None
    """Level of rows that name none."""

    max_train: Count | None = None
    """Use only the first rows of `train_file`."""

    max_test: Count | None = None
    """Use only the first rows of `test_file`."""

    @model_validator(mode="after")
    def one_source(self) -> Self:
        for split, by_level, file in (("train", self.train, self.train_file), ("test", self.test, self.test_file)):
            if bool(sum(by_level.values())) == bool(file):
                raise ValueError(f"give either {split} (counts by level) or {split}_file, one of them")
        return self


class ModelSection(Section):
    """The models that a run starts from, and what limits any model."""

    base: str = "miniature/base/weights"
    """The model that each round's policy is fine-tuned from: a checkpoint folder or a Hugging Face name. Paper:
    Qwen2.5-Math-7B, Qwen2.5-Math-1.5B and others (Section 4.1)."""

    bootstrap: str = "rules"
    """The policy of rounds with `policy = "bootstrap"`: a checkpoint folder, a Hugging Face name, or `rules`, which is
    the demo's writer of steps. Paper: DeepSeek-Coder-V2-Instruct, 236B (Section 3.4.2)."""

    bootstrap_prompt: Literal["few_shot", "zero_shot"] = "few_shot"
    """Prompt of a bootstrap model. `few_shot`: an instruction and two worked examples, as in the paper (Appendix A).
    `zero_shot`: the prompt that a fine-tuned policy gets."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of engines and training on this machine. `auto` is a GPU if there is one."""

    max_new_tokens: Count = 2048
    """Most tokens of one step. Paper: 2048 (Appendix A)."""

    max_context: Count = 4096
    """Most tokens of a prompt and its next step together. Paper: 4096 (Appendix A)."""

    max_batch: Count = 64
    """Most sequences in one batch of an engine in this process."""


class EngineSection(Section):
    """What runs the policy and the PPM (docs/engines.md). Each address is one replica and must serve exactly the model
    that is asked for. Addresses need `kind = "vllm"` or `"openai"`."""

    kind: Literal[*ENGINES] = "transformers"
    """`transformers`: models in this process. `vllm`: vLLM servers, started for the models or found at the addresses
    below. `openai`: any endpoint with `/v1/completions`, found at the addresses below."""

    bootstrap_urls: list[str] = []
    """Addresses of the bootstrap model, for rounds with `policy = "bootstrap"`."""

    policy_urls: list[str] = []
    """Addresses of the policy."""

    ppm_urls: list[str] = []
    """Addresses of the PPM."""

    replicas: Count = 1
    """vLLM servers to start for each model (data parallel)."""

    tensor_parallel: Count = 1
    """GPUs of each vLLM server."""

    policy_gpu_memory: Share = 0.55
    """Share of each GPU's memory that the policy's server takes."""

    ppm_gpu_memory: Share = 0.35
    """Share of each GPU's memory that the PPM's server takes. Both servers can be on the same GPU."""

    max_in_flight: Count = 64
    """Requests in flight for each replica of the policy. A replica of the PPM has two."""

    timeout_seconds: Positive = 600.0
    """Time limit of one request."""

    patience_seconds: Positive = 900.0
    """How long requests to replicas that do not answer are repeated before the search fails."""

    @model_validator(mode="after")
    def endpoints_are_asked(self) -> Self:
        if self.kind == "transformers" and (self.bootstrap_urls or self.policy_urls or self.ppm_urls):
            raise ValueError("kind = 'transformers' asks no endpoint; with addresses say kind = 'vllm' or 'openai'")
        return self


class SearchSection(Section):
    """What all searches have in common (Section 3.2)."""

    exploration: Positive = 2.0
    """The constant c of UCT. Paper: 2 (Appendix A)."""

    max_depth: Count = 16
    """Most steps of a trajectory. Paper: 16 (Appendix A)."""

    max_in_flight: Count = 64
    """Trees of a shard that are searched at the same time."""

    max_tokens_in_flight: Count | None = None
    """Most tokens that the policy is asked for at the same time, prompts included."""

    rollouts_in_flight: Count = 1
    """Rollouts of one tree at the same time. More than one changes the trees: overlapping rollouts are kept apart by
    virtual losses. Paper: 1."""


class RoundSection(Section):
    """One round of self-evolution (Section 3.4.2). A recipe has one `[[rounds]]` for each round, in order.
    Set `annotation = "ppm"` and `scorer = "previous"` together or not at all. The first round cannot use `previous`."""

    policy: Literal["bootstrap", "base", "previous"]
    """The policy that searches. `previous` is the one that the round before trained. Paper: `bootstrap`, then
    `previous`."""

    scorer: Literal["none", "previous"] = "none"
    """The PPM that scores steps. Paper: `none` in rounds 1 and 2, then `previous`."""

    annotation: Literal["terminal", "ppm"] = "terminal"
    """How new steps get their first Q-value. `terminal`: 0, so that only final answers count. `ppm`: the PPM's score.
    Paper: `terminal` in rounds 1 and 2, then `ppm` (Section 3.2)."""

    num_rollouts: Count
    """Rollouts of each problem. Paper: 8, 16, 16, 16 (Section 3.4.2)."""

    num_candidates: Count
    """Candidate steps of each expansion. Paper: 5, 8, 8, 16 (Appendix A)."""

    temperature: Positive = 1.0
    """Sampling temperature of the policy. Published reference code: 0.7 for the bootstrap model, then 1.0."""

    hard_rollouts: CountOrNone = 16
    """More rollouts for a problem without a correct trajectory. Paper: 16 (Appendix A)."""

    unsolved_rollouts: list[Count] = []
    """More rollouts for a problem that is still unsolved, one number after the other. Paper: 64, then 128, in round 4
    (Section 3.4.2)."""

    extra_trees: CountOrNone = 0
    """Trees with other seeds for a problem that is still unsolved. Paper: used in round 4, without a number
    (Section 3.4.2)."""

    train_policy: bool = True
    """Fine-tune a policy on this round's trajectories. If false, the round only searches and evaluates."""

    train_ppm: bool = True
    """Train a PPM on this round's preference pairs, from this round's policy. Needs `train_policy = true`."""

    @model_validator(mode="after")
    def annotation_has_scorer(self) -> Self:
        if (self.annotation == "ppm") != (self.scorer == "previous"):
            raise ValueError("annotation = 'ppm' goes with scorer = 'previous', and 'terminal' with 'none'")
        if self.train_ppm and not self.train_policy:
            raise ValueError("train_ppm = true needs train_policy = true: the PPM starts from the round's policy")
        return self


class EvaluationSection(Section):
    """What is measured after each round, on the test problems (Tables 3 to 6)."""

    num_rollouts: Count = 8
    """Rollouts of the search with the PPM (System 2). Paper: 8, for AIME and AMC 16, at most 64 (Section 4.1)."""

    num_candidates: Count = 32
    """Candidate steps of each expansion. Paper: 32 (Appendix A)."""

    top_k: Count | None = None
    """Trajectories with the highest PPM scores that take part in the weighted vote; by default all."""

    temperature: Positive = 1.0
    """Sampling temperature of the search and of majority voting. The policy alone (System 1) is greedy."""

    majority: bool = True
    """Also measure majority voting over samples that have as many tokens as the search used."""

    methods: list[Literal["best_of_n", "beam"]] = []
    """More methods to measure: best of N samples by PPM score, and step beam search."""

    beam_width: Count = 4
    """Trajectories that the beam keeps."""

    system_problems: CountOrNone | None = None
    """Test problems on which the search is measured in all rounds but the last; by default all. The last round uses
    all."""

    base: bool = True
    """Also measure the base model, as round 0."""

    pair_problems: CountOrNone = 60
    """Test problems from which the held-out preference pairs are made. The first trained policy makes the pairs once;
    all PPMs are measured on them."""

    pair_rollouts: Count = 4
    """Rollouts of the search that makes those pairs."""

    pair_candidates: Count = 6
    """Candidate steps of each expansion in that search."""


class SynthesisSection(Section):
    """New problems from solved ones, from round 2 on (Section 4.1, Appendix A). Works with
    generated problems only, not with a `train_file`."""

    num_problems: CountOrNone = 0
    """New problems to write in each round."""

    num_solutions: Count = 10
    """Solutions of each new problem. Paper: 10 (Appendix A)."""

    min_agreeing: Count = 3
    """Keep a problem if at least this many solutions agree on the answer, which becomes its label. Paper: 3
    (Appendix A)."""

    temperature: Positive = 1.0
    """Sampling temperature of the solutions."""

    @model_validator(mode="after")
    def can_agree(self) -> Self:
        if self.min_agreeing > self.num_solutions:
            raise ValueError(f"min_agreeing = {self.min_agreeing} is more than num_solutions = {self.num_solutions}")
        return self


class SandboxSection(Section):
    """Where the code of steps runs, and its limits (docs/sandbox.md)."""

    provider: Literal["auto", "docker", "gvisor", "local"] = "auto"
    """`docker`: hardened containers. `gvisor`: the same with gVisor's runtime. `local`: processes on this machine; they
    do not stop an attacker. `auto`: `docker` if an engine answers and the image is there, else `local`."""

    time_limit_seconds: Annotated[float, Field(gt=0, le=3600)] = 2.0
    """Time limit of a step's code."""

    memory_limit_mb: Count = 512
    """Memory limit of a step's code, in MiB."""
