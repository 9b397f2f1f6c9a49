"""Training of the PPM: groups of pairs, targets, losses and the training process."""

from __future__ import annotations

import json
import math
from pathlib import Path

import polars as pl
import pytest
import torch

from domains.mathematics.domain import DOMAIN
from models import ppm
from models.checkpoints import load_tokenizer
from models.inprocess.scorer import TransformersScorer
from models.training import ppm as train_ppm
from models.training.config import TrainingConfig
from models.training.ppm import read_groups
from rstar.protocols import UserError

QUESTION = "Tom has 34 apples. Tom sells 3 apples. What does Tom have at last?"
FIRST = "<code>\n# Tom has 34 apples.\ntom = 34\n<end_of_step>"
RIGHT = "\n# Tom sells 3 apples.\ntom = tom - 3\n<end_of_step>"
WRONG = "\n# Tom sells 3 apples.\ntom = tom + 3\n<end_of_step>"


def row(**changes: object) -> dict[str, object]:
    return {
        "round": 1, "group_id": "p/step/0:1", "kind": "step", "question": QUESTION, "prefix": FIRST, "chosen": RIGHT,
        "rejected": WRONG, "chosen_q": 0.8, "rejected_q": -0.6,
    } | changes  # fmt: skip


@pytest.fixture(scope="module")
def trained(small_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ppm") / "checkpoint"
    rows = [row(group_id=f"p{i}/step/0:1", question=f"Tom has {i} apples.") for i in range(16)]
    config = TrainingConfig(
        data="rows", base=str(small_policy), out=str(out), learning_rate=3e-3, epochs=8, group_batch=8, max_length=512
    )
    train_ppm.train(config, rows)
    return out


def test_the_loss_of_a_pair_is_its_ranking_loss_and_the_weighted_centring_term() -> None:
    logits, targets = torch.tensor([1.0, 0.0, 5.0]), torch.tensor([1.0, -1.0, 1.0])
    ranking = math.log(1 + math.exp(-math.tanh(1.0)))

    def loss(kind: str, centre: float) -> float:
        return float(train_ppm.loss_of(logits, [[(0, 1)]], targets, loss=kind, centre=centre))

    assert loss("ppm", 0) == pytest.approx(ranking)
    assert loss("ppm", 0.5) == pytest.approx(ranking + 0.5 * (1.0 + 0.0) ** 2)
    assert loss("pqm", 0) == pytest.approx(((math.tanh(1.0) - 1) ** 2 + 1) / 2)


def test_the_trainer_uses_the_coefficient_of_its_configuration(
    small_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    real = train_ppm.loss_of
    monkeypatch.setattr(train_ppm, "loss_of", lambda *given, **named: taken.append(named) or real(*given, **named))
    config = TrainingConfig(
        data="rows", base=str(small_policy), out=str(tmp_path / "ppm"), epochs=1, max_length=512,
        center_rewards_coefficient=0.3,
    )  # fmt: skip
    train_ppm.train(config, [row()])
    assert taken == [{"loss": "ppm", "centre": 0.3}]


async def test_a_trained_ppm_scores_the_chosen_step_above_the_rejected(trained: Path) -> None:
    async with TransformersScorer(trained, domain=DOMAIN) as scorer:
        right, wrong = await scorer.score("Tom has 99 apples.", (FIRST,), (RIGHT, WRONG))
    assert -1 <= wrong < right <= 1
    assert right - wrong > 0.5


async def test_scores_are_the_tanh_of_the_logit_whatever_the_batch(trained: Path) -> None:
    candidates = (RIGHT, WRONG, "\n# x\n<end_of_step>")
    async with TransformersScorer(trained, domain=DOMAIN) as scorer:
        together = await scorer.score(QUESTION, (FIRST,), candidates)
        short = await scorer.score("Why?", (), candidates[:1])
    model, tokenizer = ppm.load_ppm(trained, device="cpu"), load_tokenizer(trained)
    for candidate, got in zip(candidates, together, strict=True):
        ids = tokenizer(DOMAIN.prompt(QUESTION) + FIRST + candidate, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            logit = float(model(**ids).logits[0, 0])
        assert got == pytest.approx(math.tanh(logit), abs=1e-4)
    assert len(short) == 1


def test_a_text_in_several_pairs_of_a_group_is_scored_once() -> None:
    rows = [
        row(),
        row(rejected=WRONG + " "),
        row(chosen=RIGHT + " "),
        row(kind="trajectory", group_id="p/trajectory/0:0", prefix=""),
    ]
    steps, trajectory = read_groups(rows, domain=DOMAIN, loss="ppm", shuffle_labels=False, seed=0)
    assert len(steps.texts) == 4
    assert steps.pairs == [(0, 1), (0, 2), (3, 1)]
    assert trajectory.pairs == [(0, 1)]
    assert all(text.startswith(DOMAIN.prompt(QUESTION)) for text in steps.texts)


def test_nodes_of_the_same_name_in_two_rounds_are_two_groups() -> None:
    groups = read_groups([row(), row(round=2, prefix="")], domain=DOMAIN, loss="ppm", shuffle_labels=False, seed=0)
    assert [group.pairs for group in groups] == [[(0, 1)], [(0, 1)]]


def test_the_baselines_have_their_own_targets() -> None:
    [pqm] = read_groups([row()], domain=DOMAIN, loss="pqm", shuffle_labels=False, seed=0)
    assert pqm.targets == [0.8, -0.6]
    [orm] = read_groups(
        [row(), row(kind="trajectory", group_id="p/trajectory/0:0", prefix="")],
        domain=DOMAIN,
        loss="orm",
        shuffle_labels=False,
        seed=0,
    )
    assert orm.targets == [1.0, -1.0]


def test_shuffled_labels_reverse_about_half_of_the_pairs() -> None:
    rows = [row(group_id=f"p{i}/step/0:1") for i in range(400)]
    turned = sum(
        group.pairs == [(1, 0)] for group in read_groups(rows, domain=DOMAIN, loss="ppm", shuffle_labels=True, seed=0)
    )
    assert 150 < turned < 250


def test_the_process_writes_a_manifest_or_one_line_about_its_error(
    small_policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pl.DataFrame([row()]).write_parquet(tmp_path / "pairs.parquet")
    config = {
        "data": str(tmp_path / "pairs.parquet"), "base": str(small_policy), "out": str(tmp_path / "ppm"), "epochs": 1,
        "max_length": 512, "extra": {"round": 2},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.argv", ["train_ppm", "--config", str(tmp_path / "config.json")])
    train_ppm.main()
    manifest = json.loads((tmp_path / "ppm" / "manifest.json").read_text())
    assert manifest["figures"]["num_pairs"] == 1
    assert manifest["training"]["extra"] == {"round": 2}
    (tmp_path / "config.json").write_text(json.dumps(config | {"loss": "hinge"}))
    with pytest.raises(SystemExit, match="2"):
        train_ppm.main()
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last == {"error": "ppm.loss: got 'hinge'; allowed: ppm, pqm, orm"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"epoch": 1}))
    with pytest.raises(SystemExit, match="2"):
        train_ppm.main()
    assert "unknown training key 'epoch'" in capsys.readouterr().out


def test_a_policy_with_a_window_shorter_than_the_texts_is_refused(
    small_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ppm.from_policy(small_policy, pad_token_id=0)
    model.config.sliding_window = 256
    monkeypatch.setattr(ppm, "from_policy", lambda *_, **__: model)
    config = TrainingConfig(data="rows", base=str(small_policy), out=str(tmp_path / "ppm"), max_length=512)
    with pytest.raises(UserError, match=r"ppm\.max_length = 512: .* attends to 256 tokens; lower it"):
        train_ppm.train(config, [row()])
