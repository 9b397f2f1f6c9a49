import importlib.util
from pathlib import Path

import pytest

_path = Path(__file__).parents[1] / "store" / "small_run.py"
_spec = importlib.util.spec_from_file_location("small_run", _path)
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture
def small_run(tmp_path):
    return small.build(tmp_path / "small")
