import importlib.util
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("small_run", Path(__file__).with_name("small_run.py"))
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)


@pytest.fixture
def small_run(tmp_path):
    return small.build(tmp_path / "small")


@pytest.fixture
def build_small_run():
    return small.build
