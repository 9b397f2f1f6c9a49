"""Training of the PPM on preference pairs, in its own process.

Section 3.3, Equation 4: the pairwise ranking loss, averaged over the P x M pairs of a group with the same prefix.
The baselines of Table 8 have the same head: `loss="pqm"` fits the Q-values by mean squared error, `loss="orm"` the
outcome (+1 or -1) of whole trajectories.

    python -m models.training.ppm --config ppm.json
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import mse_loss
from transformers import Trainer, TrainingArguments

from domains.protocol import Domain
from domains.registry import find_domain
from models import ppm
from models.checkpoints import load_tokenizer
from models.inprocess.attention import check_window
from models.tokens import encode
from models.training import process
from models.training.config import TrainingConfig
from models.training.optimizer import optimizer
from models.training.prefix_tree import PrefixTree
from rstar.protocols import UserError

LOSSES = ("ppm", "pqm", "orm")
MAX_TREE = 4  # tokens of a prefix tree, as a multiple of the longest text's
Pairs = list[tuple[int, int]]  # (positive, negative) places in a list of texts


@dataclass(slots=True)
class Group:
    """Texts with the same prefix, their preference pairs, and their targets."""

    question: str
    texts: list[str]
    pairs: Pairs
    targets: list[float]  # Q-values (pqm) or outcomes (orm)


def read_groups(
    rows: Sequence[Mapping[str, Any]], *, domain: Domain, loss: str, shuffle_labels: bool, seed: int
) -> list[Group]:
    """Gather the rows of the pairs table by group. A text that is in several pairs is one text of its group."""
    groups: dict[object, Group] = {}
    places: dict[object, dict[str, int]] = {}
    for row in rows:
        if loss == "orm" and row["kind"] != "trajectory":
            continue
        key = (row["round"], row["group_id"])  # a node of the same name in another round has another prefix
        group, place = groups.setdefault(key, Group(row["question"], [], [], [])), places.setdefault(key, {})
        pair = []
        for side in ("chosen", "rejected"):
            text = domain.prompt(row["question"]) + row["prefix"] + row[side]
            if text not in place:
                place[text] = len(group.texts)
                group.texts.append(text)
                group.targets.append(float(row[f"{side}_q"]) if loss == "pqm" else 1.0 if side == "chosen" else -1.0)
            pair.append(place[text])
        group.pairs.append((pair[0], pair[1]))
    if shuffle_labels:
        rng = random.Random(seed)
        for group in groups.values():
            order = rng.sample(range(len(group.texts)), len(group.texts))
            group.pairs = [(order[a], order[b]) for a, b in group.pairs]
            group.targets = [group.targets[i] for i in order]
    return list(groups.values())


@dataclass(slots=True)
class Example:
    """Groups of one problem in one prefix tree: one forward pass."""

    tree: PrefixTree
    places: list[int]  # of the texts' last tokens
    groups: list[Pairs]
    targets: list[float]


def lay_out(groups: Sequence[Group], tokenizer: Any, *, domain: Domain, max_length: int) -> list[Example]:
    """Put as many groups of a problem as fit into one example; drop groups with a text over `max_length`."""
    newest: dict[str, Example] = {}  # by question
    examples = []
    for group in groups:
        texts = [encode(tokenizer, text, domain) for text in group.texts]
        if max(map(len, texts)) > max_length:
            continue
        example = newest.get(group.question)
        if example is None or len(example.tree) + sum(map(example.tree.num_new, texts)) > MAX_TREE * max_length:
            example = newest[group.question] = Example(PrefixTree(), [], [], [])
            examples.append(example)
        at = len(example.places)
        example.places += [example.tree.add(text) for text in texts]
        example.groups.append([(a + at, b + at) for a, b in group.pairs])
        example.targets += group.targets
    return examples


class PPMTrainer(Trainer):
    """A Trainer with one Example per forward pass. All groups have the same weight."""

    def __init__(self, *args: Any, loss: str, centre: float, groups_per_example: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._loss, self._centre, self._groups_per_example = loss, centre, groups_per_example
        self.model_accepts_loss_kwargs = False

    def compute_loss(self, model: Any, inputs: dict[str, Any], **_: Any) -> torch.Tensor:
        groups, targets = inputs.pop("groups"), inputs.pop("targets")
        logits = ppm.logits(model, ppm.states(model, **inputs))
        loss = loss_of(logits, groups, targets, loss=self._loss, centre=self._centre)
        return loss * len(groups) / self._groups_per_example


def loss_of(
    logits: torch.Tensor, groups: Sequence[Pairs], targets: torch.Tensor, *, loss: str, centre: float
) -> torch.Tensor:
    """Return the mean loss of the groups, by one of LOSSES; `centre` is the weight of `ppm.off_centre`."""
    values = ppm.scores(logits)
    if loss == "ppm":
        return ppm.grouped_pairwise_loss(values, groups) + centre * ppm.off_centre(logits, groups)
    texts = [sorted({text for pair in group for text in pair}) for group in groups]
    return torch.stack([mse_loss(values[each], targets[each]) for each in texts]).mean()


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the inputs of a batch, which is one example."""
    [example] = examples
    rest = {"places": example.places, "groups": example.groups, "targets": torch.tensor(example.targets)}
    return example.tree.inputs() | rest


def train(config: TrainingConfig, rows: Sequence[Mapping[str, Any]]) -> None:
    """Train the policy `config.base` into a PPM on rows of the pairs table, and write the checkpoint `config.out`."""
    if config.loss not in LOSSES:
        raise UserError(f"ppm.loss: got {config.loss!r}; allowed: {', '.join(LOSSES)}")
    process.start(config)
    domain = find_domain(config.domain)
    tokenizer = load_tokenizer(config.base)
    groups = read_groups(rows, domain=domain, loss=config.loss, shuffle_labels=config.shuffle_labels, seed=config.seed)
    examples = lay_out(groups, tokenizer, domain=domain, max_length=config.max_length)
    if not examples:
        raise UserError(
            f"{config.data}: no preference pairs to train the PPM on (every problem all right or all wrong?)"
        )
    num_groups = sum(len(example.groups) for example in examples)
    num_pairs = sum(len(group) for example in examples for group in example.groups)
    num_tokens = sum(len(example.tree) for example in examples)
    model = ppm.from_policy(config.base, pad_token_id=tokenizer.pad_token_id, device=config.device)
    check_window(config.base, model.config, "ppm.max_length", config.max_length)
    trainer = PPMTrainer(
        model=model,
        loss=config.loss,
        centre=config.center_rewards_coefficient,
        groups_per_example=num_groups / len(examples),
        args=TrainingArguments(
            output_dir=config.out + ".trainer",
            num_train_epochs=config.num_epochs(num_tokens),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            warmup_steps=config.warmup_ratio,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=max(1, round(config.group_batch * len(examples) / num_pairs)),
            seed=config.seed,
            save_strategy="no",
            logging_steps=5,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=model.device.type == "cpu",
        ),
        train_dataset=examples,
        data_collator=collate,
        callbacks=[process.Progress()],
        optimizers=(optimizer(model, config), None),
    )
    began = time.monotonic()
    result = trainer.train()
    figures = {
        "num_groups": num_groups,
        "num_pairs": num_pairs,
        "num_tokens": int(num_tokens * trainer.state.epoch),
        "seconds": round(time.monotonic() - began, 2),
        "loss": result.training_loss,
    }
    process.finish(config, model, tokenizer, figures)


def main() -> None:
    process.run(__doc__, train)


if __name__ == "__main__":
    main()
