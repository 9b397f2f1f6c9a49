"""The PPM's losses, its head and the loading of its checkpoints."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from models import ppm
from rstar.protocols import UserError


def test_the_loss_of_a_group_is_the_mean_over_its_pairs() -> None:
    values = torch.tensor([0.5, -0.5, 0.1, 0.9])

    def term(a: float, b: float) -> float:
        return math.log(1 + math.exp(b - a))

    one = (term(0.5, -0.5) + term(0.5, 0.1)) / 2  # P = 1, M = 2
    two = term(0.9, 0.1)
    loss = ppm.grouped_pairwise_loss(values, [[(0, 1), (0, 2)], [(3, 2)]])
    assert float(loss) == pytest.approx((one + two) / 2, abs=1e-6)


def test_off_centre_is_the_mean_over_pairs_of_the_squared_sum() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 3.0], requires_grad=True)
    off = ppm.off_centre(logits, [[(0, 1), (0, 2)], [(3, 2)]])
    assert float(off.detach()) == pytest.approx(((0 + 9) / 2 + 16) / 2)
    both_high = torch.tensor([6.0, 6.5], requires_grad=True)  # in the wrong order, and both at the flat end of the tanh
    [ranking] = torch.autograd.grad(ppm.grouped_pairwise_loss(ppm.scores(both_high), [[(0, 1)]]), both_high)
    [centring] = torch.autograd.grad(0.02 * ppm.off_centre(both_high, [[(0, 1)]]), both_high)
    assert ranking.abs().max() < 1e-4 and centring.min() > 0.1


def test_a_checkpoint_without_the_tanh_head_is_refused(small_policy: Path) -> None:
    with pytest.raises(UserError, match="not a PPM checkpoint"):
        ppm.load_ppm(small_policy)


def test_a_checkpoint_that_lacks_weights_is_refused(small_policy: Path, tmp_path: Path) -> None:
    model = ppm.from_policy(small_policy, pad_token_id=0, device="cpu")
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "score.weight"}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(UserError, match=r"score\.weight is missing from its weights; restore it or train it again"):
        ppm.load_ppm(tmp_path, device="cpu")


def test_a_new_head_scores_everything_zero(small_policy: Path) -> None:
    model = ppm.from_policy(small_policy, pad_token_id=0)
    ids = torch.randint(5, 100, (1, 7)).to(model.device)
    assert ppm.logits(model, ppm.states(model, [3, 6], input_ids=ids)).tolist() == [0, 0]
