"""Muon gives the updates of torch's own Muon, for matrices of several shapes and over several steps."""

from __future__ import annotations

import pytest
import torch

from models.training import optimizer as module
from models.training.config import TrainingConfig
from models.training.optimizer import Muon, optimizer

SHAPES = [(16, 16), (16, 16), (8, 16), (48, 16), (16, 48)]


@pytest.mark.parametrize(("precision", "share"), [(torch.bfloat16, 1e-5), (torch.float32, 0.02)])
def test_updates_are_those_of_torch_which_computes_in_bfloat16(
    precision: torch.dtype, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "precision", lambda _: precision)
    torch.manual_seed(0)
    begin = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    mine, theirs = ([torch.nn.Parameter(each.detach().clone()) for each in begin] for _ in range(2))
    ours = Muon(mine, lr=1e-2, weight_decay=0.1)
    torchs = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        torchs.step()
    for a, b, before in zip(mine, theirs, begin, strict=True):
        assert (a - b).norm() < share * (b - before).norm()


def test_a_matrix_without_a_gradient_does_not_change() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.eye(4)
    Muon([still, moved], lr=0.1).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, torch.ones(4, 4))


@pytest.mark.parametrize(("embeddings", "rate"), [(None, 0.5), (3.0, 3.0)])
def test_the_parameters_that_muon_does_not_train_have_their_own_rate(embeddings: float | None, rate: float) -> None:
    model = torch.nn.ModuleDict({"layers": torch.nn.Linear(4, 4), "embedding": torch.nn.Embedding(5, 4)})
    config = TrainingConfig(
        data="", base="", out="", optimizer="muon", learning_rate=1.0, embedding_learning_rate=embeddings
    )
    layers, rest = optimizer(model, config).param_groups
    assert (layers["lr"], [p.shape for p in layers["params"]]) == (1.0, [(4, 4)])
    assert (rest["lr"], {p.shape for p in rest["params"]}) == (rate, {(4,), (5, 4)})


def test_the_iteration_uses_bfloat16_only_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, precision in ((lambda: True, torch.bfloat16), (lambda: False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", known)
        assert module.precision(torch.zeros(1)) is precision
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # torch may remove this private name
    assert module.precision(torch.zeros(1)) is torch.float32
