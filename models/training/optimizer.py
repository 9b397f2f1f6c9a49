"""The optimizer of a training: AdamW, as in the paper, or Muon for the layers' matrices and AdamW for the rest.

Muon is ours because torch.optim.Muon always computes in bfloat16, which many CPUs can only emulate.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from models.training.config import TrainingConfig
from rstar.protocols import UserError

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Keller Jordan's, as in torch.optim.Muon
NUM_ITERATIONS = 5
MAX_ENTRIES = 2**26  # of the matrices that are orthogonalized together


def optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `config` names, for the parameters of `model`."""
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
    """Two optimizers behind the interface of one. It saves no state, because trainings are never resumed."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([dict(group) for group in groups], {})
        for part, group in zip(parts, self.param_groups, strict=True):
            part.param_groups = [group]  # a learning-rate schedule then changes the part's own rate

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for part in self.parts:
            part.step()


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum, for matrices of one shape at a time.

    The same updates as torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, which makes learning rates of AdamW's
    scale. Torch orthogonalizes one matrix after another, which is slow for the small matrices of a tiny model.
    """

    def __init__(
        self, matrices: Iterable[torch.Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                at_once = max(1, MAX_ENTRIES // shape.numel())
                for first in range(0, len(matrices), at_once):
                    self._update(matrices[first : first + at_once], group)

    def _update(self, matrices: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Update matrices of one shape."""
        updates = []
        for matrix in matrices:
            state = self.state[matrix]
            if not state:
                state["momentum"] = torch.zeros_like(matrix)
            momentum = state["momentum"].lerp_(matrix.grad, 1 - group["momentum"])
            updates.append(matrix.grad.lerp(momentum, group["momentum"]))
        rate = group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
        for matrix, update in zip(matrices, orthogonalized(torch.stack(updates)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalized(matrices: torch.Tensor) -> torch.Tensor:
    """Return nearly orthogonal matrices close to `matrices`, shape (number, rows, columns), by Newton-Schulz."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(precision(matrices))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def precision(matrices: torch.Tensor) -> torch.dtype:
    """Return bfloat16 where it is native, else float32, which is many times faster than emulated bfloat16."""
    native = matrices.is_cuda or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if native else torch.float32
