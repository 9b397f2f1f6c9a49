"""The configuration of a training process: its hyperparameters, what it reads and what it writes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from rstar.protocols import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run. Defaults are the paper's, where it gives them (Section 4.1, Appendix A.2)."""

    data: str  # Parquet file
    base: str  # checkpoint directory or Hugging Face name
    out: str  # checkpoint directory to write
    domain: str = "mathematics"
    learning_rate: float = 7e-6
    embedding_learning_rate: float | None = None  # Muon only: the rate of all that AdamW trains; None: half the other
    schedule: str = "linear"
    warmup_ratio: float = 0.0
    epochs: float = 2
    max_tokens: int | None = None  # fewer epochs if they hold more tokens than this
    batch_tokens: int = 128 * 4096  # the paper: 128 sequences of 4096 tokens
    max_length: int = 4096
    packing: bool = True  # SFT only: rows of `max_length` tokens; False: one trajectory a row
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    optimizer: str = "adamw"  # the paper's; a tiny model needs half the steps with muon
    neftune_noise_alpha: float | None = None  # SFT only: noise on embeddings (arXiv 2310.05914; L: a row's length)
    group_batch: int = 512  # PPM only: pairs in a batch
    loss: str = "ppm"  # ppm | pqm | orm
    center_rewards_coefficient: float = 0.0  # ppm only: the weight of `models.ppm.off_centre`; 0: the paper's loss
    shuffle_labels: bool = False  # the control experiment: PPM targets in random order
    seed: int = 0
    device: str = ""  # empty: a GPU if there is one
    threads: int = 0  # 0: one for each core
    extra: dict[str, Any] = field(default_factory=dict)  # the caller's own notes for the manifest

    @classmethod
    def load(cls, path: str) -> TrainingConfig:
        """Read a JSON file. An unknown key is a UserError."""
        raw = json.loads(Path(path).read_text())
        known = {f.name for f in fields(cls)}
        if unknown := set(raw) - known:
            raise UserError(f"{path}: unknown training key {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(known))}")
        return cls(**raw)

    def num_epochs(self, num_tokens: int) -> float:
        """Return how often to go through a data set of `num_tokens` tokens."""
        return self.epochs if self.max_tokens is None else min(self.epochs, self.max_tokens / num_tokens)
