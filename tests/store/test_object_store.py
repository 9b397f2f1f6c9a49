"""A run in an S3 bucket, over the real protocol, served by moto."""

import pytest

from rstar.protocols import UserError
from store import questions
from store.catalog import open_catalog, query
from store.files import matching, read_bytes, write_bytes
from store.layout import Run
from store.shards import read_rows, write_rows

moto_server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'rstar[s3test]'")


@pytest.fixture
def bucket(monkeypatch):
    import s3fs

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem(use_listings_cache=False).makedirs("s3://rstar-test", exist_ok=True)
    yield "s3://rstar-test"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_a_run_in_a_bucket_is_written_listed_and_queried(bucket, build_small_run):
    run = build_small_run(f"{bucket}/runs/small")
    assert run.shards(1) == [run.nodes(1, 0), run.nodes(1, 1)]
    with open_catalog(run.root) as con:
        coverage = questions.run(con, "coverage").rows()
    assert (2, "all", 4, 3, 75.0) in coverage
    assert matching(run.root, "*.duckdb") == []


def test_a_shard_in_a_bucket_has_the_same_bytes_as_on_disk(bucket, small_run, build_small_run):
    remote = build_small_run(f"{bucket}/runs/small")
    assert read_bytes(remote.nodes(1, 0)) == read_bytes(small_run.nodes(1, 0))


def test_a_rewritten_shard_replaces_the_old_one(bucket):
    run = Run(f"{bucket}/runs/again")
    row = {"question": "q", "answer": "1", "level": "gsm", "source": "s", "synthetic": False}
    write_rows(run.problems("a"), "problems", [{**row, "id": "1"}, {**row, "id": "2"}])
    write_rows(run.problems("a"), "problems", [{**row, "id": "3"}])
    assert [row["id"] for row in read_rows(run.problems("a"), "problems")] == ["3"]
    assert query(run.root, "SELECT id FROM problems").rows() == [("3",)]


def test_a_missing_object_and_a_missing_bucket_are_named(bucket):
    with pytest.raises(UserError, match=r"cannot read s3://rstar-test/x\.parquet: no such file"):
        read_rows(f"{bucket}/x.parquet", "nodes")
    with pytest.raises(UserError, match="cannot write s3://no-such-bucket/x"):
        write_bytes("s3://no-such-bucket/x", b"1")
    with pytest.raises(UserError, match="no run at s3://rstar-test/none"):
        open_catalog(f"{bucket}/none")
