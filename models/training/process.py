"""A training process: its command line, its seeds and threads, and the lines of progress that it prints."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
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
    set_seed,
)

from models.checkpoints import save_checkpoint
from models.training.config import TrainingConfig
from rstar.protocols import UserError


def run(description: str | None, train: Callable[[TrainingConfig, list[dict[str, Any]]], None]) -> None:
    """Call `train` with the configuration in `--config FILE` and the rows of its data file.

    An error is printed as one line of JSON. The exit status is 2 for a UserError, 1 for any other.
    """
    import pyarrow.parquet as pq  # starts no threads, which a forked process would lack

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True)
    file = parser.parse_args().config
    try:
        config = TrainingConfig.load(file)
        train(config, pq.read_table(config.data).to_pylist())
    except Exception as error:
        print(json.dumps({"error": " ".join(str(error).split())}), flush=True)
        sys.exit(2 if isinstance(error, UserError) else 1)


def start(config: TrainingConfig) -> None:
    """Seed every generator and set the number of threads."""
    set_seed(config.seed)
    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))


def finish(
    config: TrainingConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, figures: dict[str, Any]
) -> None:
    """Write the checkpoint `config.out` and remove the trainer's own folder, which is empty."""
    save_checkpoint(model, tokenizer, Path(config.out), training=asdict(config), figures=figures)
    shutil.rmtree(f"{config.out}.trainer", ignore_errors=True)


class Progress(TrainerCallback):
    """Prints one JSON line at each logging step, {"step", "of", "loss"}, for the parent process."""

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
