"""Muon gives torch's own updates, for matrices of several shapes and over several steps."""

from __future__ import annotations

import torch

from models.muon import Muon

SHAPES = [(16, 16), (16, 16), (8, 16), (48, 16), (16, 48)]


def test_updates_are_those_of_torch() -> None:
    torch.manual_seed(0)
    mine = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(each.detach().clone()) for each in mine]
    ours = Muon(mine, lr=1e-2, weight_decay=0.1)
    torchs = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        ours.step()
        torchs.step()
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def test_a_matrix_without_gradient_stays() -> None:
    still, moved = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    moved.grad = torch.eye(4)
    Muon([still, moved], lr=0.1).step()
    assert torch.equal(still, torch.ones(4, 4)) and not torch.equal(moved, torch.ones(4, 4))
