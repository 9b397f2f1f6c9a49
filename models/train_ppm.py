"""Training of the PPM on preference pairs, in a process of its own.

Section 3.3, Equation 4: the pairwise ranking loss, averaged over the P x M pairs of a group with the same prefix.
Baselines for Table 8 with the same head: `loss="pqm"` fits the Q-values by mean squared error, `loss="orm"` fits the
outcome (+1 or -1) of whole trajectories.

    python -m models.train_ppm --config ppm.json
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from models import ppm, training
from models.checkpoints import load_tokenizer
from models.tokens import encode
from models.training import TrainingConfig
from rstar.prompts import render_prompt
from rstar.protocols import UserError

LOSSES = ("ppm", "pqm", "orm")


@dataclass(slots=True)
class Group:
    """Texts that share a prefix, which of them is preferred to which, and their targets."""

    texts: list[str]
    pairs: list[tuple[int, int]]  # (positive, negative) places in `texts`
    targets: list[float]  # Q-values (pqm) or outcomes (orm)


def read_groups(rows: Sequence[Mapping[str, Any]], *, loss: str, shuffle_labels: bool, seed: int) -> list[Group]:
    """Gather the rows of the pairs table by group; each text is scored once, however many pairs it is in."""
    rng = random.Random(seed)
    groups: dict[object, Group] = {}
    places: dict[object, dict[str, int]] = {}
    for row in rows:
        if loss == "orm" and row["kind"] != "trajectory":
            continue
        key = (row["round"], row["group_id"])  # another round's node of the same name has another prefix
        group, place = groups.setdefault(key, Group([], [], [])), places.setdefault(key, {})
        pair = []
        for side in ("chosen", "rejected"):
            text = render_prompt(row["question"]) + row["prefix"] + row[side]
            if text not in place:
                place[text] = len(group.texts)
                group.texts.append(text)
                group.targets.append(float(row[f"{side}_q"]) if loss == "pqm" else 1.0 if side == "chosen" else -1.0)
            pair.append(place[text])
        group.pairs.append((pair[0], pair[1]))
    made = list(groups.values())
    if shuffle_labels:
        for group in made:
            order = rng.sample(range(len(group.texts)), len(group.texts))
            group.pairs = [(order[a], order[b]) for a, b in group.pairs]
            group.targets = [group.targets[i] for i in order]
    return made


class PPMTrainer(Trainer):
    """A Trainer whose examples are groups."""

    def __init__(self, *args: Any, loss: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss = loss
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **_: Any) -> Any:
        values = ppm.scores(model, inputs["input_ids"], inputs["attention_mask"])
        if self._loss == "ppm":
            loss = ppm.grouped_pairwise_loss(values, inputs["groups"])
        else:
            loss = torch.nn.functional.mse_loss(values, inputs["targets"])
        return (loss, values) if return_outputs else loss


def collate(examples: Sequence[dict[str, Any]], pad_token_id: int) -> dict[str, Any]:
    """Lay the texts of a batch of groups under one another, padded on the right; pairs become row numbers."""
    rows = [ids for example in examples for ids in example["ids"]]
    length = max(map(len, rows))
    ids = torch.tensor([row + [pad_token_id] * (length - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    groups, at = [], 0
    for example in examples:
        groups.append([(a + at, b + at) for a, b in example["pairs"]])
        at += len(example["ids"])
    targets = torch.tensor([target for example in examples for target in example["targets"]])
    return {"input_ids": ids, "attention_mask": mask, "groups": groups, "targets": targets}


def train(config: TrainingConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """Train the policy `config.base` into a PPM on rows of the pairs table, and write the checkpoint `config.out`."""
    if config.loss not in LOSSES:
        raise UserError(f"ppm.loss: got {config.loss!r}; allowed: {', '.join(LOSSES)}")
    training.start(config)
    tokenizer = load_tokenizer(config.base)
    groups = read_groups(rows, loss=config.loss, shuffle_labels=config.shuffle_labels, seed=config.seed)
    examples = []
    for group in groups:
        ids = [encode(tokenizer, text) for text in group.texts]
        if max(map(len, ids)) <= config.max_length:
            examples.append({"ids": ids, "pairs": group.pairs, "targets": group.targets})
    if not examples:
        raise UserError(
            f"{config.data}: no preference pairs to train the PPM on (every problem all right or all wrong?)"
        )
    num_pairs = sum(len(example["pairs"]) for example in examples)
    per_step = max(1, round(config.group_batch * len(examples) / num_pairs))  # groups that hold about a batch of pairs
    small = min(per_step, 8)
    model = ppm.from_policy(config.base, pad_token_id=tokenizer.pad_token_id, device=config.device)
    trainer = PPMTrainer(
        model=model,
        loss=config.loss,
        args=TrainingArguments(
            output_dir=config.out + ".trainer",
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            warmup_steps=config.warmup_ratio,
            per_device_train_batch_size=small,
            gradient_accumulation_steps=max(1, per_step // small),
            seed=config.seed,
            save_strategy="no",
            logging_steps=5,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=model.device.type == "cpu",
            train_sampling_strategy="group_by_length",
            length_column_name="length",
        ),
        # Only of a Dataset does the sampler read the length column.
        train_dataset=Dataset.from_list([example | {"length": max(map(len, example["ids"]))} for example in examples]),
        data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
        callbacks=[training.Progress()],
        optimizers=(training.optimizer(model, config), None),
    )
    began = time.monotonic()
    result = trainer.train()
    figures = {
        "num_groups": len(examples),
        "num_pairs": num_pairs,
        "seconds": round(time.monotonic() - began, 2),
        "loss": result.training_loss,
    }
    training.save_checkpoint(model, tokenizer, config, figures)


def main() -> None:
    training.run(__doc__, train)


if __name__ == "__main__":
    main()
