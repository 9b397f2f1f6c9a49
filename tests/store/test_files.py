"""Errors of an object store that does not answer or needs credentials."""

import pytest
import s3fs

from rstar.protocols import StoreError, UserError
from store.files import exists, read_bytes


@pytest.fixture
def nowhere(monkeypatch):
    """S3 at a port where nothing listens."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_object_store_that_does_not_answer_is_a_store_error(nowhere, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(StoreError, match=r"cannot look for s3://bucket/x: Could not connect.*AWS_ENDPOINT_URL"):
        exists("s3://bucket/x")


def test_missing_credentials_are_a_user_error(nowhere):
    with pytest.raises(UserError, match=r"cannot read s3://bucket/x: Unable to locate credentials"):
        read_bytes("s3://bucket/x")
