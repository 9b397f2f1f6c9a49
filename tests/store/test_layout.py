"""Where the files of a run lie."""

from store.layout import Run


def test_paths_follow_the_documented_layout(tmp_path):
    run = Run(tmp_path / "demo")
    root = str(tmp_path / "demo")
    assert run.name == "demo"
    assert run.nodes(2, 7) == f"{root}/trees/round=2/shard=0007.parquet"
    assert run.sft(3) == f"{root}/sft/round=3.parquet"
    assert run.evaluations(0, "base") == f"{root}/evaluations/round=0-base.parquet"
    assert run.models(1, "ppm") == f"{root}/models/round=1/ppm"
    assert run.report("md") == f"{root}/report.md"


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Run("runs/demo").root == str(tmp_path / "runs" / "demo")


def test_an_object_store_root_is_kept():
    assert Run("s3://bucket/runs/demo/").pairs(1) == "s3://bucket/runs/demo/pairs/round=1.parquet"


def test_it_lists_what_exists(small_run, tmp_path):
    assert small_run.shards(1) == [small_run.nodes(1, 0), small_run.nodes(1, 1)]
    assert small_run.files("pairs") == []
    assert small_run.exists()
    assert not Run(tmp_path / "nothing").exists()
