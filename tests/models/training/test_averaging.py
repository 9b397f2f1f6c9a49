"""Averaging the weights of several trainings, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import fingerprint, load_policy, load_tokenizer
from models.training.averaging import average


def checkpoint(folder: Path, **weights: torch.Tensor) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    manifest = {"fingerprint": fingerprint(folder), "figures": {"loss": weights["a"].sum().item()}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_each_weight_is_the_mean_and_keeps_its_precision(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "1", a=torch.tensor([1.0, 2.0]), b=torch.tensor([[4.0]], dtype=torch.bfloat16))
    two = checkpoint(tmp_path / "2", a=torch.tensor([3.0, -2.0]), b=torch.tensor([[1.0]], dtype=torch.bfloat16))
    average([one, two], tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / "model.safetensors")
    assert mean["a"].tolist() == [2.0, 0.0] and mean["b"].tolist() == [[2.5]]
    assert mean["b"].dtype == torch.bfloat16
    manifest = json.loads((tmp_path / "mean" / "manifest.json").read_text())
    assert manifest["fingerprint"] == fingerprint(tmp_path / "mean") != fingerprint(one)
    assert [each["fingerprint"] for each in manifest["averaged"]] == [fingerprint(one), fingerprint(two)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_checkpoints_with_different_tensors_are_an_error_and_replace_nothing(
    tmp_path: Path, order: tuple[int, int]
) -> None:
    one = checkpoint(tmp_path / "1", a=torch.ones(2), b=torch.ones(1))
    two = checkpoint(tmp_path / "2", a=torch.ones(2))
    old = checkpoint(tmp_path / "mean", a=torch.zeros(2))
    with pytest.raises(ValueError, match="not the same tensors"):
        average([(one, two)[at] for at in order], old)
    assert load_file(old / "model.safetensors")["a"].tolist() == [0.0, 0.0]


def test_the_mean_of_a_policy_and_itself_is_that_policy(small_policy: Path, tmp_path: Path) -> None:
    member = tmp_path / "member"
    load_policy(small_policy, device="cpu").save_pretrained(member)
    load_tokenizer(small_policy).save_pretrained(member)
    (member / "manifest.json").write_text(json.dumps({"fingerprint": fingerprint(member), "figures": {}}))
    average([member, member], tmp_path / "mean")
    same = load_policy(tmp_path / "mean", device="cpu").state_dict()
    for name, weight in load_policy(small_policy, device="cpu").state_dict().items():
        assert torch.equal(same[name], weight), name
