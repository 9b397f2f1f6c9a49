from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.widened import widen
from models.checkpoints import load_policy

BASE = Path(__file__).parents[3] / "miniature" / "base" / "weights"


@pytest.mark.skipif(not BASE.is_dir(), reason="the tiny base is not built; `make tiny-base`")
@torch.inference_mode()
def test_a_widened_policy_has_the_logits_of_the_small_one(tmp_path: Path) -> None:
    num_parameters = widen(BASE, tmp_path, hidden=256, layers=8, intermediate=768)
    small, large = load_policy(BASE, device="cpu"), load_policy(tmp_path, device="cpu")
    assert num_parameters > 3 * sum(weight.numel() for weight in small.parameters())
    ids = torch.randint(10, 900, (3, 40), generator=torch.Generator().manual_seed(0))
    expected = small(ids).logits.log_softmax(-1)
    assert expected.std() > 1
    torch.testing.assert_close(large(ids).logits.log_softmax(-1), expected, atol=1e-3, rtol=1e-3)
