"""Pre-trains the tiny base model from scratch on generated text: `make tiny-base`.

The same trainer as SFT, in three stages: short passages until copying works (models/tiny_text.py), then longer ones in
the shapes of word problems (models/cued_text.py), first with a fixed word that opens the question, then with any.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from itertools import islice

from models import cued_text, tiny_text, train_sft
from models.tiny import tiny_model, train_tokenizer
from models.training import TrainingConfig, start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="models/tiny-base")
    parser.add_argument("--num-documents", type=int, nargs=3, default=[32_000, 20_000, 9_000], help="of each stage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first = TrainingConfig(
        data="models/tiny_text.py",
        base="",
        out=f"{options.out}.first",
        learning_rate=6e-3,
        optimizer="muon",
        schedule="cosine",
        warmup_ratio=0.03,
        epochs=1,
        batch_tokens=8 * 512,
        max_length=512,
        weight_decay=0.01,
        adam_beta2=0.98,
        seed=options.seed,
    )
    start(first)
    tokenizer = train_tokenizer()
    text = islice(tiny_text.documents(options.seed + 1), options.num_documents[0])
    train_sft.train(first, text, model=tiny_model(tokenizer), tokenizer=tokenizer)
    before = first
    for stage, (free_questions, rate, count) in enumerate(
        ((False, 4e-3, options.num_documents[1]), (True, 2e-3, options.num_documents[2])), start=2
    ):
        out = options.out if free_questions else f"{options.out}.second"
        config = dataclasses.replace(
            before, data="models/cued_text.py", base=before.out, out=out, learning_rate=rate, seed=options.seed
        )
        text = cued_text.documents(options.seed + stage, free_questions=free_questions)
        train_sft.train(config, islice(text, count))
        shutil.rmtree(before.out)
        before = config


if __name__ == "__main__":
    main()
