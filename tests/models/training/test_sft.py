from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from domains.mathematics.domain import DOMAIN
from domains.mathematics.steps import kind_of
from models.checkpoints import fingerprint, load_policy, load_tokenizer
from models.inprocess.policy import TransformersPolicy
from models.training import sft as train_sft
from models.training.config import TrainingConfig
from models.training.sft import IGNORE, tokenize
from rstar.protocols import UserError

QUESTION = "Tom has 34 apples. How many apples does Tom have now?"
RESPONSE = (
    "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>\n# How many?\nprint(tom)\n<end_of_code>\n"
    "<output>34<end_of_output>\n<answer>The answer is \\boxed{34}.\n<end_of_answer>"
)


def config(base: Path, out: Path, **changes: object) -> TrainingConfig:
    values = {"data": "rows", "base": str(base), "out": str(out), "learning_rate": 5e-3, "epochs": 30}
    return TrainingConfig(**(values | {"batch_tokens": 512, "max_length": 512} | changes))


def test_prompt_and_output_stay_out_of_the_loss(small_policy: Path) -> None:
    tokenizer = load_tokenizer(small_policy)
    row = tokenize(tokenizer, DOMAIN.prompt(QUESTION), RESPONSE, domain=DOMAIN)
    learned = tokenizer.decode([token for token in row["labels"] if token != IGNORE])
    assert learned == RESPONSE.replace("\n<output>34<end_of_output>", "") + tokenizer.eos_token
    assert tokenizer.decode(row["input_ids"]) == DOMAIN.prompt(QUESTION) + RESPONSE + tokenizer.eos_token
    first = RESPONSE.index("<end_of_step>") + len("<end_of_step>")
    partly = tokenize(tokenizer, DOMAIN.prompt(QUESTION), RESPONSE, [(0, first)], domain=DOMAIN)
    assert tokenizer.decode([token for token in partly["labels"] if token != IGNORE]) == learned[first:]
    assert partly["input_ids"] == row["input_ids"]


async def test_the_policy_learns_the_steps_that_it_is_trained_on(small_policy: Path, tmp_path: Path) -> None:
    train_sft.train(config(small_policy, tmp_path / "policy"), [(DOMAIN.prompt(QUESTION), RESPONSE)] * 8)
    async with TransformersPolicy(tmp_path / "policy", domain=DOMAIN, max_new_tokens=40, temperature=0) as policy:
        [step] = await policy.propose(QUESTION, (), num_candidates=1, seed=0)
    assert kind_of(step.text) == "code"
    assert step.text == RESPONSE[: len(step.text)]
    manifest = json.loads((tmp_path / "policy" / "manifest.json").read_text())
    assert manifest["fingerprint"] == fingerprint(tmp_path / "policy") != fingerprint(small_policy)
    assert manifest["figures"]["num_examples"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize(("packing", "num_steps"), [(True, 1), (False, 4)])
def test_a_row_is_packed_or_one_trajectory(small_policy: Path, tmp_path: Path, packing: bool, num_steps: int) -> None:
    rows = [(DOMAIN.prompt(f"{QUESTION} {i}"), RESPONSE) for i in range(4)]
    train_sft.train(config(small_policy, tmp_path / "policy", epochs=1, packing=packing), rows)
    manifest = json.loads((tmp_path / "policy" / "manifest.json").read_text())
    assert manifest["figures"]["num_steps"] == num_steps


def test_the_same_run_twice_gives_the_same_weights(small_policy: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        short = config(small_policy, tmp_path / name, epochs=1)
        train_sft.train(short, [(DOMAIN.prompt(f"{QUESTION} {i}"), RESPONSE) for i in range(4)])
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")


def test_noise_on_the_embeddings_changes_the_training_but_adds_no_weights(small_policy: Path, tmp_path: Path) -> None:
    rows = [(DOMAIN.prompt(f"{QUESTION} {i}"), RESPONSE) for i in range(4)]
    for name, alpha in (("without", None), ("with", 5.0), ("again", 5.0)):
        train_sft.train(config(small_policy, tmp_path / name, epochs=1, neftune_noise_alpha=alpha), rows)
    prints = [fingerprint(tmp_path / name) for name in ("without", "with", "again")]
    assert prints[0] != prints[1] == prints[2]
    names = [set(load_policy(tmp_path / name, device="cpu").state_dict()) for name in ("without", "with")]
    assert names[0] == names[1]


def test_packed_trajectories_do_not_attend_to_each_other(small_policy: Path) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    model, tokenizer = load_policy(small_policy, device="cpu"), load_tokenizer(small_policy)
    rows = [
        tokenize(tokenizer, DOMAIN.prompt(question), RESPONSE, domain=DOMAIN)
        for question in (QUESTION, "Ana owns 7 pens.")
    ]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    packed = collate(rows)
    with torch.no_grad():
        together = model(input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False).logits[0]
        apart = torch.cat([model(torch.tensor([row["input_ids"]])).logits[0] for row in rows])
    assert torch.allclose(together, apart, atol=1e-4)


@pytest.mark.parametrize(("max_tokens", "rounds"), [(None, 4.0), (10_000, 4.0), (90, 3.0), (15, 0.5)])
def test_a_budget_of_tokens_limits_the_epochs(max_tokens: int | None, rounds: float) -> None:
    changed = config(Path("base"), Path("out"), epochs=4, max_tokens=max_tokens)
    assert changed.num_epochs(30) == rounds


def test_the_manifest_has_the_number_of_tokens_trained_on(small_policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "short"
    train_sft.train(config(small_policy, out, epochs=30, max_tokens=1000), [(DOMAIN.prompt(QUESTION), RESPONSE)] * 8)
    figures = json.loads((out / "manifest.json").read_text())["figures"]
    an_epoch = 8 * len(
        tokenize(load_tokenizer(small_policy), DOMAIN.prompt(QUESTION), RESPONSE, domain=DOMAIN)["input_ids"]
    )
    assert figures["num_tokens"] == 2 * an_epoch  # the training ends with the step that uses up the budget
    assert an_epoch < 1000 < 2 * an_epoch


def test_too_long_trajectories_are_dropped_and_none_left_is_an_error(small_policy: Path, tmp_path: Path) -> None:
    long = (DOMAIN.prompt("word " * 600), RESPONSE)
    train_sft.train(config(small_policy, tmp_path / "p", epochs=1), [long, (DOMAIN.prompt(QUESTION), RESPONSE)])
    figures = json.loads((tmp_path / "p" / "manifest.json").read_text())["figures"]
    assert (figures["num_examples"], figures["num_dropped"]) == (1, 1)
    with pytest.raises(UserError, match="no trajectory of at most 512 tokens"):
        train_sft.train(config(small_policy, tmp_path / "q"), [long])
    assert not (tmp_path / "q").exists()
