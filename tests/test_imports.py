"""Who may import whom: the rooms of docs/architecture.md, read from the source and from fresh interpreters."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MIDDLE = {"problems", "store", "models", "sandbox", "report", "miniature"}
BELOW_MIDDLE = {"rstar", "domains"}
MAY_IMPORT = {
    "rstar": set(),
    "domains": {"rstar"},
    **{room: BELOW_MIDDLE for room in MIDDLE},
    "report": BELOW_MIDDLE | {"store"},
    "miniature": BELOW_MIDDLE | {"problems", "models"},
    "tasks": BELOW_MIDDLE | MIDDLE,
    "flows": BELOW_MIDDLE | MIDDLE | {"tasks"},
    "serve": BELOW_MIDDLE | MIDDLE | {"tasks", "flows"},
    "cli": BELOW_MIDDLE | MIDDLE | {"tasks", "flows", "serve"},  # `rstar serve` starts the service
}
ONLY_IN = {
    "prefect": {"flows", "tasks"},
    "torch": {"models", "miniature"},
    "transformers": {"models", "miniature"},
    "trl": {"models", "miniature"},
    "vllm": {"models"},
    "docker": {"sandbox"},
    "duckdb": {"store"},
}
PURE = {"numpy", "rstar", *sys.stdlib_module_names}
MAX_FILES = 14


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


@pytest.mark.parametrize("room", sorted(MAY_IMPORT.keys() - {"domains", "miniature"}))
def test_only_the_miniature_world_knows_a_domain_by_name(room: str) -> None:
    wrong = [f"{file}: {name}" for file, name in imports(room) if name.startswith("domains.mathematics")]
    assert not wrong


@pytest.mark.parametrize("room", sorted(MAY_IMPORT.keys() - {"miniature"}))
def test_nothing_outside_the_miniature_world_knows_a_family(room: str) -> None:
    wrong = [f"{file}: {name}" for file, name in imports(room) if name.startswith("miniature.families")]
    assert not wrong


def test_the_algorithm_needs_numpy_and_the_standard_library_only() -> None:
    wrong = [f"{file}: {name}" for file, name in imports("rstar") if name.split(".")[0] not in PURE]
    assert not wrong


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_folder_shows_its_parts_as_folders_and_says_what_it_is(room: str) -> None:
    for folder in (ROOT / room, *(ROOT / room).rglob("*/")):
        files = list(folder.glob("*.py"))
        if files and folder.name != "__pycache__":
            assert len(files) <= MAX_FILES, f"{folder} has {len(files)} files"
            assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text())), f"{folder}: no docstring"


def loaded_by(modules: str, names: set[str]) -> str:
    code = f"import sys, {modules}; print(sorted({names!r} & sys.modules.keys()) or 'none')"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def test_importing_the_search_loads_neither_prefect_nor_torch_nor_a_domain() -> None:
    assert loaded_by("rstar.search", {"prefect", "torch", "docker", "duckdb", "domains"}) == "none"


def test_importing_tasks_does_not_load_torch() -> None:
    assert loaded_by("tasks.rollouts, tasks.sft, tasks.ppm, tasks.evaluation", {"torch"}) == "none"


def test_no_file_is_named_like_a_dependency() -> None:
    names = {"docker", "datasets", "torch", "prefect", "duckdb", "polars", "trl", "transformers", "vllm", "altair"}
    rooms = [file for room in MAY_IMPORT for file in (ROOT / room).rglob("*.py")]
    assert not [file for file in rooms if file.stem in names]
