"""Who may import whom: the rooms of docs/architecture.md, read from the source and from one fresh interpreter."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MIDDLE = {"problems", "store", "models", "sandbox", "report"}
MAY_IMPORT = {
    "rstar": set(),
    **{room: {"rstar"} for room in MIDDLE},
    "report": {"rstar", "store"},
    "tasks": {"rstar", *MIDDLE},
    "flows": {"rstar", "tasks", *MIDDLE},
}
ONLY_IN = {
    "prefect": {"flows", "tasks"},
    "torch": {"models"},
    "transformers": {"models"},
    "trl": {"models"},
    "vllm": {"models"},
    "docker": {"sandbox"},
    "duckdb": {"store"},
}
PURE = {"numpy", "rstar", *sys.stdlib_module_names}


def imports(room: str) -> Iterator[tuple[Path, str]]:
    """Yield every import of a room's files, those inside functions too."""
    for file in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                yield from ((file, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                yield file, node.module or ""


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_the_rooms_below_it(room: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[room] - {room}
    wrong = [f"{file}: {name}" for file, name in imports(room) if name.split(".")[0] in forbidden]
    assert not wrong


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_heavy_package_is_imported_in_its_own_room_only(room: str) -> None:
    top_names = [(file, name.split(".")[0]) for file, name in imports(room)]
    wrong = [f"{file}: {name}" for file, name in top_names if room not in ONLY_IN.get(name, {room})]
    assert not wrong


def test_the_algorithm_needs_numpy_and_the_standard_library_only() -> None:
    wrong = [f"{file}: {name}" for file, name in imports("rstar") if name.split(".")[0] not in PURE]
    assert not wrong


def test_importing_the_search_loads_neither_prefect_nor_torch() -> None:
    code = "import sys, rstar.search; print({'prefect', 'torch', 'docker', 'duckdb'} & sys.modules.keys() or 'none')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "none"


def test_importing_tasks_does_not_load_torch() -> None:
    code = "import sys, tasks.rollouts, tasks.training, tasks.evaluation; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_no_file_is_named_like_a_dependency() -> None:
    names = {"docker", "datasets", "torch", "prefect", "duckdb", "polars", "trl", "transformers", "vllm"}
    rooms = [file for room in MAY_IMPORT for file in (ROOT / room).glob("*.py")]
    assert not [file for file in rooms if file.stem in names]
