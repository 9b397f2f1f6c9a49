"""The sections of a recipe about training: SFT of the policy, and the PPM.

Sections 3.3, 3.4 and Appendix A of the paper. The docstring below a key is its meaning, as in recipe_sections.py.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from flows.recipe_sections import Count, CountOrNone, Positive, Section, Share


class TrainingSection(Section):
    """What SFT and PPM training have in common."""

    apart: ClassVar[frozenset[str]] = frozenset({"accumulate"})  # keys that the training process does not get

    epochs: Positive
    """Passes over the training set."""

    max_tokens: Count | None = None
    """Upper limit on the tokens that are trained on. Above it there are fewer passes."""

    learning_rate: Positive = 7e-6
    """Highest learning rate. Paper: 7e-6 for Qwen, 5e-6 for Phi-3 (Appendix A)."""

    embedding_learning_rate: Positive | None = None
    """Learning rate of embeddings, norms and head with `optimizer = "muon"`; by default half of `learning_rate`. Not
    allowed with `adamw`, which has one rate."""

    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Course of the learning rate. Paper: `linear` for Qwen, `cosine` for Phi-3 (Appendix A)."""

    warmup_ratio: Share = 0.0
    """Share of the training steps in which the learning rate rises."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of the optimizer."""

    adam_beta2: Share = 0.999
    """The beta2 of AdamW."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` trains the matrices of the layers with Muon and the rest with AdamW. Paper: `adamw` (Appendix A)."""

    max_length: Count = 4096
    """Longest sequence in tokens. A longer one is left out. Paper: 4096 (Appendix A)."""

    accumulate: bool = False
    """Also train on the sets of the rounds before."""

    threads: CountOrNone = 0
    """CPU threads of one training. 0: all cores, or an equal share if several trainings run at the same time."""

    @model_validator(mode="after")
    def used_rates(self) -> Self:
        if self.embedding_learning_rate is not None and self.optimizer != "muon":
            raise ValueError("embedding_learning_rate goes with optimizer = 'muon': adamw has one rate for all")
        return self

    def hyperparameters(self) -> dict[str, Any]:
        """Return what the training process gets: how it learns, but not which rows it learns from."""
        return self.model_dump(exclude=set(self.apart))


class SftSection(TrainingSection):
    """Supervised fine-tuning of the policy (Section 3.4, Appendix A). Every round starts from the base model."""

    apart = TrainingSection.apart | {"num_per_problem", "min_correct_synthetic", "num_averaged"}

    epochs: Positive = 2.0
    """Passes over the training set. Paper: 2 (Appendix A)."""

    batch_tokens: Count = 128 * 4096
    """Tokens of a batch, in rows of `max_length`. Paper: 128 rows of 4096 (Appendix A)."""

    packing: bool = True
    """Put as many trajectories into a row as fit. If false, each row has one."""

    neftune_noise_alpha: Positive | None = None
    """Strength of the noise on embeddings (NEFTune, arXiv 2310.05914). Paper: none."""

    num_averaged: Count = 1
    """Policies that are trained with different seeds and averaged to one (arXiv 2203.05482). Paper: 1."""

    num_per_problem: Count = 2
    """Correct trajectories of each problem, those with the highest mean Q-value. Paper: 2 (Section 3.4)."""

    min_correct_synthetic: Share = 0.5
    """Leave out a synthetic problem if a smaller share of its trajectories is correct. Paper: 0.5 (Appendix A)."""


class PpmSection(TrainingSection):
    """Training of the process preference model (Section 3.3). It starts from the round's policy."""

    apart = TrainingSection.apart | {"num_per_side", "min_margin", "min_edit_distance"}

    epochs: Positive = 1.0
    """Passes over the training set. Paper: 1 (Appendix A)."""

    group_batch: Count = 512
    """Pairs of a batch. All pairs of a problem are in the same batch, which can make it larger. Paper: 512
    (Appendix A)."""

    loss: Literal["ppm", "pqm", "orm"] = "ppm"
    """`ppm`: the pairwise ranking loss of Equation 4. `pqm` and `orm` are the baselines of Table 8: squared error on
    Q-values, and on the outcome of whole trajectories."""

    center_rewards_coefficient: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Weight of a term that keeps the scores of a pair around 0, where tanh is steep. Only with `loss = "ppm"`. Paper:
    0."""

    num_per_side: Count = 2
    """Positive and negative steps of each node, and positive and negative trajectories of each problem. Paper: 2
    (Section 3.3)."""

    min_margin: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Leave out pairs with a smaller difference of Q-values. Published reference code: 0.5. Paper: none."""

    min_edit_distance: CountOrNone = 20
    """Leave out pairs whose texts differ in fewer characters. Published reference code: 20. Paper: none."""

    shuffle_labels: bool = False
    """Assign the targets at random: a control experiment, which must learn nothing."""

    @model_validator(mode="after")
    def centres_pairs(self) -> Self:
        if self.center_rewards_coefficient and self.loss != "ppm":
            raise ValueError(
                f"center_rewards_coefficient goes with loss = 'ppm', not with {self.loss!r}: it is of pairs"
            )
        return self
