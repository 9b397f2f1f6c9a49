"""The whole pipeline at its smallest size, with the command line, the flows and real training."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from flows.recipe import load_recipe
from flows.shard import search_shard
from store import catalog, shards
from store.layout import Run
from tasks.heldout_pairs import heldout_pairs
from tasks.lib.problems import read_problems

REPOSITORY = Path(__file__).parent.parent.parent
TABLES = ("problems", "nodes", "trajectories", "sft", "pairs", "evaluations", "rounds")
THREADS = ["--set", "sft.threads=1", "--set", "ppm.threads=1"]


def rstar(*arguments: str, timeout: float = 280) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def finished(base: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smoke recipe."""
    root = tmp_path_factory.mktemp("runs") / "smoke"
    done = rstar("demo", "--recipe", "smoke", "--out", str(root), "--set", f"model.base={base}", *THREADS)
    assert done.returncode == 0, done.stderr
    return root


def test_a_run_fills_every_table_and_writes_models_and_a_report(finished: Path) -> None:
    counts = {table: catalog.query(finished, f"SELECT count(*) AS n FROM {table}")["n"][0] for table in TABLES}
    assert all(counts.values()), counts
    phases = catalog.query(finished, "SELECT DISTINCT phase FROM rounds WHERE round = 2")["phase"].to_list()
    assert sorted(phases) == ["evaluation", "extraction", "pairs", "ppm", "search", "sft", "synthesis"]
    query = "SELECT peak_memory_bytes AS peak FROM rounds WHERE round = {} AND phase = '{}'"
    for round in (1, 2):
        for kind, phase in (("policy", "sft"), ("ppm", "ppm")):
            manifest = json.loads((finished / f"models/round={round}/{kind}/manifest.json").read_text())
            trained = manifest.get("averaged", [manifest])
            assert len({each["training"]["seed"] for each in trained}) == (2 if kind == "policy" else 1)
            peak = catalog.query(finished, query.format(round, phase))["peak"][0]
            assert peak >= sum(each["figures"]["peak_memory_bytes"] for each in trained) > 2**26
            assert manifest["fingerprint"] and manifest["fingerprint"] not in [
                each["fingerprint"] for each in manifest.get("averaged", [])
            ]
        assert not [*finished.glob(f"models/round={round}/*/*.safetensors")][
            2:
        ]  # the checkpoints that were averaged are deleted
    assert "Coverage" in (finished / "report.md").read_text()


def test_every_row_names_its_recipe(finished: Path, base: str) -> None:
    hashes = catalog.query(finished, "SELECT DISTINCT recipe FROM nodes UNION SELECT DISTINCT recipe FROM evaluations")
    overrides = [f"model.base={base}", *THREADS[1::2], "run.seed=0"]
    assert hashes["recipe"].to_list() == [load_recipe("smoke", overrides).hash]


def test_the_nodes_of_the_second_round_name_the_models_of_the_first(finished: Path) -> None:
    fingerprints = [
        json.loads((finished / f"models/round=1/{kind}/manifest.json").read_text())["fingerprint"]
        for kind in ("policy", "ppm")
    ]
    models = catalog.query(finished, "SELECT DISTINCT model FROM nodes WHERE round = 2")["model"].to_list()
    assert models == ["+".join(fingerprints)]


def test_a_pair_refers_to_existing_nodes(finished: Path) -> None:
    missing = catalog.query(
        finished,
        "SELECT count(*) AS n FROM pairs p WHERE NOT EXISTS (SELECT 1 FROM nodes x WHERE x.round = p.round"
        " AND x.problem_id = p.problem_id AND x.tree || ':' || x.id = p.chosen_node)",
    )
    assert missing["n"][0] == 0


def test_a_repeated_search_gives_the_same_trees(finished: Path, tmp_path: Path, prefect_server: None) -> None:
    again = tmp_path / "smoke"
    shutil.copytree(finished, again)
    shutil.rmtree(again / "trees" / "round=2")
    asyncio.run(search_shard(str(again), 2, 0))
    before, after = (
        shards.comparable(shards.read_table(Run(root).nodes(2, 0), "nodes"), "nodes") for root in (finished, again)
    )
    assert after.drop_columns("logprob").equals(before.drop_columns("logprob"))
    # Which requests share a batch depends on the load of the machine. With other kernels than those of
    # tests/models/inprocess/test_batches.py the last bits may depend on the shape of the batch.
    assert after["logprob"].to_pylist() == pytest.approx(before["logprob"].to_pylist(), abs=1e-3)


def test_a_finished_run_is_not_repeated_but_a_deleted_file_is_remade(finished: Path, base: str, tmp_path: Path) -> None:
    run = Run(str(tmp_path / "smoke"))
    again = Path(shutil.copytree(finished, run.root))
    pair = shards.read_rows(run.pairs(1), "pairs")[0] | {"problem_id": min(read_problems(run, "test").problems)}
    swapped = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
    shards.write_rows(heldout_pairs(run), "pairs", [pair, swapped])
    Path(run.pairs(1)).unlink()
    Path(run.evaluations(2)).unlink()
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*.parquet")}
    done = rstar("evolve", "smoke", "--out", str(again), "--set", f"model.base={base}", *THREADS)
    assert done.returncode == 0, done.stderr
    written = {
        path.relative_to(again) for path in again.rglob("*.parquet") if before.get(path) != path.stat().st_mtime_ns
    }
    assert {str(path) for path in written} == {
        *("pairs/round=1.parquet", "rounds/round=1-pairs.parquet"),
        *("evaluations/round=2.parquet", "rounds/round=2-evaluation.parquet"),
    }
    first, second = [row for row in shards.read_rows(run.evaluations(2), "evaluations") if row["metric"] == "ppm_pairs"]
    assert first["score"] == -second["score"] != 0
    assert [first["correct"], second["correct"]] == [first["score"] > 0, second["score"] > 0]


QUESTION = "Tom has 34 apples. Tom finds 12 apples. How many apples does Tom have now?"


@pytest.mark.parametrize("budget", ["2", "300t", "2s"])
def test_solve_prints_an_answer_or_that_there_is_none_and_the_cost(finished: Path, budget: str) -> None:
    done = rstar("solve", QUESTION, "--run", str(finished), "--budget", budget)
    assert done.returncode == 0, done.stderr
    assert "answer" in done.stdout and " tokens, " in done.stdout
    assert "\x1b" not in done.stdout and "thinking" not in done.stdout  # no live display without a terminal


def test_solve_reads_a_file_with_and_without_answers_and_writes_its_solutions(finished: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "two.jsonl", tmp_path / "found.jsonl"
    rows = [{"problem": QUESTION, "answer": "46"}, {"problem": QUESTION.replace("34", "35")}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{torn\n")
    done = rstar("solve", "--file", str(file), "--run", str(finished), "--budget", "1", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert f"{file}:3: not JSON" in done.stderr
    assert "of 1 answers are right" in done.stdout
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["problem"] for row in found] == [row["problem"] for row in rows]
    assert all({"answer", "score", "steps", "tokens", "seconds"} <= row.keys() for row in found)
    assert ["correct" in row for row in found] == [True, False]


@pytest.mark.parametrize("command", [("solve", QUESTION), ("serve",), ("benchmark", "problems.jsonl")])
def test_a_command_uses_the_engine_that_it_names(finished: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    if command[0] == "benchmark":
        (tmp_path / command[1]).write_text(json.dumps({"problem": QUESTION, "answer": "46"}) + "\n")
        command = ("benchmark", str(tmp_path / command[1]))
    done = rstar(*command, "--run", str(finished), "--set", "engine.kind=openai")
    assert done.returncode == 2
    assert "no address of an endpoint that serves" in done.stderr and "Traceback" not in done.stderr


def test_solve_checks_the_path_of_its_results_before_it_searches(finished: Path, tmp_path: Path) -> None:
    done = rstar("solve", QUESTION, "--run", str(finished), "--out", str(tmp_path / "no" / "such.jsonl"))
    assert done.returncode == 2
    assert done.stderr.startswith("rstar: --out ") and len(done.stderr.splitlines()) == 1


def test_serve_answers_and_stops_on_sigterm(finished: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "serve", "--run", str(finished), "--port", "0", "--budget", "1"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = next(word for word in process.stdout.readline().split() if word.startswith("http://"))
        body = {"messages": [{"role": "user", "content": QUESTION}]}
        reply = httpx.post(f"{url}/chat/completions", json=body, timeout=100, trust_env=False).json()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert reply["object"] == "chat.completion" and reply["usage"]["completion_tokens"] > 0
    assert process.returncode == 0 and output.strip() == "stopped"
    announced = re.sub(r"\s", "", errors)  # lines are wrapped at the width of the terminal
    assert re.fullmatch(r"policy\S+/policy,PPM\S+/ppm(stepsruninthelocalsandbox.*)?", announced), errors


def test_benchmark_evaluates_policy_and_system_on_a_file(finished: Path, tmp_path: Path) -> None:
    question = "Ana has {} coins. Ana finds 5 coins. How many coins does Ana have now?"
    rows = [{"problem": question.format(n), "answer": str(n + 5)} for n in (41, 52)]
    file = tmp_path / "two.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "{torn\n")
    done = rstar("benchmark", str(file), "--run", str(finished))
    assert done.returncode == 0, done.stderr
    assert all(metric in done.stdout for metric in ("pass@1", "system", "majority"))
    assert f"{file}:3: not JSON" in done.stderr


def test_a_run_on_real_problems_finishes_and_names_bad_rows(base: str, tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(50, 62)]
    train, test = tmp_path / "train.jsonl", tmp_path / "test.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"question": "Why?"}\n')
    test.write_text(json.dumps({"question": "What is 2 + 2?", "answer": "#### 4"}) + "\n")
    overrides = [
        f"problems.train_file={train}",
        f"problems.test_file={test}",
        f"model.base={base}",
        f"model.bootstrap={base}",
    ]
    root = tmp_path / "real"
    done = rstar("evolve", "gsm8k-tiny", "--out", str(root), *(part for key in overrides for part in ("--set", key)))
    assert done.returncode == 0, done.stderr
    coverage = catalog.query(root, "SELECT num_problems FROM coverage WHERE level = 'gsm'")
    assert coverage["num_problems"].to_list() == [len(rows)]
    assert "1 rows left out, named in" in " ".join(done.stdout.split())
    assert f"{train}:{len(rows) + 1}" in (root / "problems" / "train.left-out.txt").read_text()
    assert (root / "report.html").exists()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_prints_the_command_that_resumes_it(tmp_path: Path, base: str, stop: signal.Signals) -> None:
    root = tmp_path / "stopped"
    overrides = ["--set", f"model.base={base}", "--set", "evaluation.base=false", "--set", "rounds.1.num_rollouts=200",
                 "--set", "problems.train.gsm=400", "--set", "run.shards=8"]  # fmt: skip
    command = [sys.executable, "-m", "cli.main", "evolve", "smoke", "--out", str(root), *overrides]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy(),
        start_new_session=True,
    )  # fmt: skip
    for _ in range(600):
        if Run(root).shards(1) or process.poll() is not None:
            break
        time.sleep(0.1)
    if stop == signal.SIGINT:  # a terminal sends it to every process of the group
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"rstar evolve smoke --out {root}" in errors and "Traceback" not in errors
    assert Run(root).shards(1) and not list(root.rglob("*.tmp"))
