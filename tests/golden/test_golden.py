"""The golden worlds are matched to the last digit, and the checker notices where they are not."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
WORLDS = json.loads((HERE / "golden_trees.json").read_text())

spec = importlib.util.spec_from_file_location("golden_run", HERE / "run.py")
golden = importlib.util.module_from_spec(spec)
spec.loader.exec_module(golden)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world["name"])
def test_the_search_gives_what_the_world_expects(world):
    assert golden.check(world) is None


def run(path):
    return subprocess.run([sys.executable, HERE / "run.py", path], capture_output=True, text=True, cwd="/")


def test_the_checker_passes_on_the_golden_file():
    assert run(HERE / "golden_trees.json").returncode == 0


def test_the_checker_names_the_first_difference_and_exits_non_zero(tmp_path):
    worlds = json.loads(json.dumps(WORLDS[:2]))
    worlds[1]["expected"]["nodes"][1]["value_sum"] += 1e-15
    (tmp_path / "worlds.json").write_text(json.dumps(worlds))
    done = run(tmp_path / "worlds.json")
    assert done.returncode == 1
    assert "world-1: nodes[1].value_sum: expected" in done.stderr
