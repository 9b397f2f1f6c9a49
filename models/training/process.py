"""What the training processes share: their configuration, progress lines, seeds and the manifest of a checkpoint."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from models.training.muon import Muon
from rstar.protocols import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run. Defaults are the paper's where it gives them (Section 4.1, Appendix A.2)."""

    data: str  # Parquet file
    base: str  # checkpoint directory or Hugging Face name
    out: str  # checkpoint directory to write
    learning_rate: float = 7e-6
    embedding_learning_rate: float | None = None  # muon only: of all it leaves to AdamW; None: half the other
    schedule: str = "linear"
    warmup_ratio: float = 0.0
    epochs: float = 2
    max_tokens: int | None = None  # fewer epochs where they hold more tokens than this
    batch_tokens: int = 128 * 4096  # the paper: 128 sequences of 4096 tokens
    max_length: int = 4096
    packing: bool = True  # SFT only: rows of `max_length` tokens; False: each trajectory is a row
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    optimizer: str = "adamw"  # the paper's; muon learns a tiny model in half the steps
    neftune_noise_alpha: float | None = None  # SFT only: noise on the embeddings (arXiv 2310.05914; L = a row's length)
    group_batch: int = 512  # pairs in a batch (PPM only)
    loss: str = "ppm"  # ppm | pqm | orm
    center_rewards_coefficient: float = 0.0  # ppm only: weight of models/ppm.py's off_centre; 0: the paper's loss
    shuffle_labels: bool = False  # the control: PPM targets dealt out at random
    seed: int = 0
    device: str = ""  # empty: a GPU where there is one
    threads: int = 0  # 0: as many as there are
    extra: dict[str, Any] = field(default_factory=dict)  # what the caller wants in the manifest

    @classmethod
    def load(cls, path: str) -> TrainingConfig:
        raw = json.loads(Path(path).read_text())
        known = {f.name for f in fields(cls)}
        if unknown := set(raw) - known:
            raise UserError(f"{path}: unknown training key {sorted(unknown)[0]!r}; allowed: {', '.join(sorted(known))}")
        return cls(**raw)


def epochs(config: TrainingConfig, num_tokens: int) -> float:
    """How often to go through a set of `num_tokens` tokens."""
    return config.epochs if config.max_tokens is None else min(config.epochs, config.max_tokens / num_tokens)


def start(config: TrainingConfig) -> None:
    """Seed every generator and set the threads."""
    from transformers import set_seed

    set_seed(config.seed)
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))


def optimizer(model: PreTrainedModel, config: TrainingConfig) -> torch.optim.Optimizer:
    """AdamW, or Muon for the matrices of the layers and AdamW for the rest, at rates of the same scale."""
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
    """Two optimisers that a trainer and its schedule see as one; training is not resumed, so no state is kept."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([dict(group) for group in groups], {})
        for part, group in zip(parts, self.param_groups, strict=True):
            part.param_groups = [group]  # the schedule changes this group's rate

    def step(self, closure: Callable[[], float] | None = None) -> None:
        for part in self.parts:
            part.step()


class Progress(TrainerCallback):
    """Prints one JSON line a logging step: {"step", "of", "loss"}; the parent process draws it."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        loss = (logs or {}).get("loss")
        print(json.dumps({"step": state.global_step, "of": state.max_steps, "loss": loss}), flush=True)


def save_checkpoint(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: TrainingConfig, figures: dict[str, Any]
) -> None:
    """Write a Hugging Face checkpoint and its manifest."""
    model.config.use_cache = True  # the trainer switches it off
    with new_checkpoint(Path(config.out), training=asdict(config), figures=figures) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        figures["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # saving included
    shutil.rmtree(f"{config.out}.trainer", ignore_errors=True)  # the trainer's own folder, empty


@contextmanager
def new_checkpoint(out: Path, **manifest: Any) -> Iterator[Path]:
    """Have a checkpoint written under another name, add its manifest, then rename: all there or not there."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    manifest["fingerprint"] = fingerprint(part)
    (part / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def fingerprint(checkpoint: Path) -> str:
    """A hash of a checkpoint's weights: which model wrote a step."""
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(checkpoint.glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def run(description: str | None, train: Callable[[TrainingConfig, list[dict[str, Any]]], None]) -> None:
    """Be a training process: `--config FILE` names the rows; one line for the parent where it fails."""
    import pyarrow.parquet as pq  # has no threads that a fork would lack

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True)
    file = parser.parse_args().config
    try:
        config = TrainingConfig.load(file)
        train(config, pq.read_table(config.data).to_pylist())
    except Exception as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)
        sys.exit(2 if isinstance(error, UserError) else 1)
