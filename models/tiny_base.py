"""Pre-trains the tiny base model from scratch on generated text: `make tiny-base`.

The same trainer as SFT, in two stages: short passages until copying works (models/tiny_text.py), then longer ones in
the shapes of word problems (models/cued_text.py).
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
    parser.add_argument("--num-documents", type=int, nargs=2, default=[32_000, 20_000], help="of the two stages")
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
    second = dataclasses.replace(first, data="models/cued_text.py", base=first.out, out=options.out, learning_rate=4e-3)
    train_sft.train(second, islice(cued_text.documents(options.seed + 2), options.num_documents[1]))
    shutil.rmtree(first.out)


if __name__ == "__main__":
    main()
