"""The mean of the weights of several trainings that started from the same model ("model soups", arXiv 2203.05482).

Trainings that differ only in their seeds become overconfident about different things; the mean is confident about what
they have in common.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.checkpoints import new_checkpoint


def average(checkpoints: Sequence[Path], out: Path) -> None:
    """Write the mean of the checkpoints' weights as the checkpoint `out`, with their manifests in its own.

    Memory holds one weights file of each checkpoint at a time. Raises ValueError if their tensors have different names.
    """
    manifests = [json.loads((checkpoint / "manifest.json").read_text()) for checkpoint in checkpoints]
    with new_checkpoint(out, averaged=manifests) as folder:
        shutil.copytree(checkpoints[0], folder, dirs_exist_ok=True)
        for file in folder.glob("*.safetensors"):
            weights = [load_file(checkpoint / file.name) for checkpoint in checkpoints]
            if any(each.keys() != weights[0].keys() for each in weights):
                raise ValueError(f"{file.name}: not the same tensors in {', '.join(map(str, checkpoints))}")
            mean = {
                name: torch.stack([each[name].float() for each in weights]).mean(0).to(tensor.dtype)
                for name, tensor in weights[0].items()
            }
            save_file(mean, file, metadata={"format": "pt"})
