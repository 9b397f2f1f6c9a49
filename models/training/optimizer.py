"""The optimizer of a training: AdamW, as in the paper, or Muon for the layers' matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from models.training.config import TrainingConfig
from models.training.muon import Muon
from rstar.protocols import UserError


def optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer of `config` for the parameters of `model`."""
    betas, decay = (0.9, config.adam_beta2), config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=betas, weight_decay=decay)
    if config.optimizer != "muon":
        raise UserError(f"optimizer: got {config.optimizer!r}; allowed: adamw, muon")
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers." in name]
    chosen = set(map(id, matrices))
    rest = [p for p in model.parameters() if id(p) not in chosen]
    rate = config.embedding_learning_rate or config.learning_rate / 2
    return MuonWithAdamW(
        Muon(matrices, lr=config.learning_rate, weight_decay=decay),
        torch.optim.AdamW(rest, lr=rate, betas=betas, weight_decay=decay),
    )


class MuonWithAdamW(torch.optim.Optimizer):
    """Two optimizers behind the interface of one. Its state cannot be saved: training is never resumed."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([dict(group) for group in groups], {})
        for part, group in zip(parts, self.param_groups, strict=True):
            part.param_groups = [group]  # so that a learning-rate schedule changes the part's own rate

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for part in self.parts:
            part.step()
