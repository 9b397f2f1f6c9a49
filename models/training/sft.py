"""Supervised fine-tuning (SFT) of the policy on chosen trajectories, in its own process.

Section 3.4 and Appendix A.2, with TRL's SFTTrainer. The prompt and the output of executed code are masked, because the
policy does not write them. Every training starts from the base model.

    python -m models.training.sft --config sft.json
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from trl import SFTConfig, SFTTrainer

from domains.protocol import Domain
from domains.registry import find_domain
from models.checkpoints import load_policy, load_tokenizer
from models.tokens import encode_spans
from models.training import process
from models.training.config import TrainingConfig
from models.training.optimizer import optimizer
from rstar.protocols import UserError

IGNORE = -100
# Prompt and response, and optionally spans of the response that are masked.
Example = tuple[str, str] | tuple[str, str, Sequence[tuple[int, int]]]


def read_examples(rows: Sequence[Mapping[str, Any]], domain: Domain) -> list[Example]:
    """Return the prompt and response of each row of the SFT table."""
    return [(domain.prompt(row["question"]), row["response"]) for row in rows]


def tokenize(
    tokenizer: Any, prompt: str, response: str, hidden: Sequence[tuple[int, int]] = (), *, domain: Domain
) -> dict[str, list[int]]:
    """Return ids of prompt, response and end of text, and labels that mask prompt, outputs and the spans `hidden`."""
    tokens = encode_spans(tokenizer, prompt + response, domain)
    outputs = domain.output_spans(response)
    masked = [(0, len(prompt)), *((len(prompt) + a, len(prompt) + b) for a, b in (*outputs, *hidden))]
    labels = [
        IGNORE if any(low <= start and end <= high for low, high in masked) else token for token, (start, end) in tokens
    ]
    return {
        "input_ids": [*(token for token, _ in tokens), tokenizer.eos_token_id],
        "labels": [*labels, tokenizer.eos_token_id],
    }


class LabelledTrainer(SFTTrainer):
    """An SFTTrainer with the same loss in half the time: logits for labelled tokens only, and no entropy."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None, **_: Any
    ) -> torch.Tensor:
        labels = inputs.pop("labels")[:, 1:]
        hidden = model.base_model(**inputs).last_hidden_state[:, :-1]
        kept = labels != IGNORE
        total = cross_entropy(model.lm_head(hidden[kept]).float(), labels[kept], reduction="sum")
        return total / (kept.sum() if num_items_in_batch is None else num_items_in_batch)


def train(config: TrainingConfig, examples: Iterable[Example], *, model: Any = None, tokenizer: Any = None) -> None:
    """Fine-tune `config.base` (or `model`) on prompts and responses, and write the checkpoint `config.out`."""
    process.start(config)
    domain = find_domain(config.domain)
    tokenizer = tokenizer or load_tokenizer(config.base)
    model = model or load_policy(config.base, device=config.device, training=True)
    rows = [tokenize(tokenizer, *example, domain=domain) for example in examples]
    kept = [row for row in rows if len(row["input_ids"]) <= config.max_length]
    if not kept:
        raise UserError(f"{config.data}: no trajectory of at most {config.max_length} tokens to train on")
    num_tokens = sum(len(row["input_ids"]) for row in kept)
    trainer = LabelledTrainer(
        model=model,
        args=SFTConfig(
            output_dir=config.out + ".trainer",
            num_train_epochs=config.num_epochs(num_tokens),
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.schedule,
            warmup_steps=config.warmup_ratio,
            max_length=config.max_length,
            packing=config.packing,
            packing_strategy="bfd",
            per_device_train_batch_size=1,
            gradient_accumulation_steps=max(1, config.batch_tokens // config.max_length),
            seed=config.seed,
            save_strategy="no",
            logging_steps=5,
            report_to="none",
            disable_tqdm=True,
            bf16=False,
            activation_checkpointing=False,
            neftune_noise_alpha=config.neftune_noise_alpha,
            use_cpu=model.device.type == "cpu",
        ),
        train_dataset=Dataset.from_list(kept),
        processing_class=tokenizer,
        callbacks=[process.Progress()],
        optimizers=(optimizer(model, config), None),
    )
    began = time.monotonic()
    result = trainer.train()
    figures = {
        "num_examples": len(kept),
        "num_dropped": len(rows) - len(kept),
        "num_steps": trainer.state.global_step,
        "num_tokens": int(num_tokens * trainer.state.epoch),
        "seconds": round(time.monotonic() - began, 2),
        "loss": result.training_loss,
    }
    process.finish(config, trainer.model, tokenizer, figures)


def main() -> None:
    process.run(__doc__, lambda config, rows: train(config, read_examples(rows, find_domain(config.domain))))


if __name__ == "__main__":
    main()
