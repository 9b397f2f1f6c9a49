"""Muon, many matrices at a time.

torch.optim.Muon orthogonalises one matrix after the other, which for the small matrices of a tiny model is a quarter of
a training step. Here those of one shape go through the Newton-Schulz iteration together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Keller Jordan's, as in torch.optim.Muon
NUM_STEPS = 5
MAX_ENTRIES = 2**26  # of the matrices that go together


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; its rate is scaled to the update of AdamW (`match_rms_adamw` of torch's)."""

    def __init__(
        self, matrices: Iterable[torch.Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        assert closure is None
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
        for matrix, update in zip(matrices, orthogonalised(torch.stack(updates)), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def precision(matrices: torch.Tensor) -> torch.dtype:
    """What the iteration computes in: CPUs without bfloat16 emulate it, at a thirtieth of the speed of float32."""
    native = matrices.is_cuda or getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return torch.bfloat16 if native else torch.float32


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """The nearly orthogonal matrices next to `matrices`, shape (number, rows, columns)."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(precision(matrices))
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NUM_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
