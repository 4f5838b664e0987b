"""Kept pictures in an object store: addresses that lead nowhere, and stores that refuse, hang or are gone."""

import hashlib
import socket
import sys
import time
from collections.abc import Callable

import pytest
from fsspec.registry import _registry

from service.errors import StartupError, StoreUnavailable
from service.remote_pictures import open_remote

NAME = hashlib.sha256(b"picture").hexdigest()


@pytest.mark.parametrize(
    ("url", "words"),
    [("nonsense://bucket/x", "cannot be used"), ("s3://", "names no bucket"), ("memory:///", "names no bucket")],
)
def test_addresses_that_name_no_place(url: str, words: str) -> None:
    with pytest.raises(StartupError, match=words):
        open_remote(url, seconds=1)


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(_registry, "s3", raising=False)
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if it were not installed
    with pytest.raises(StartupError, match=r"pip install 'jigsight\[s3\]'"):
        open_remote("s3://bucket/pictures", seconds=1)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(StartupError) as caught:
        open_remote("nonsense://user:secret@host/x", seconds=1)
    assert "secret" not in str(caught.value)


def test_a_bucket_that_is_not_there_refuses(bucket: Callable[[], str]) -> None:
    place = open_remote(f"s3://{bucket()}-not/pictures", seconds=20)
    with pytest.raises(StoreUnavailable, match="refused"):
        place.write(NAME, b"picture")


def test_a_store_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch, bucket: Callable[[], str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # nobody listens here
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        place = open_remote("s3://bucket/pictures", seconds=1)
        with pytest.raises(StoreUnavailable, match="no verdict"):
            place.write(NAME, b"picture")


def test_a_store_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, bucket: Callable[[], str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        place = open_remote("s3://bucket/pictures", seconds=1)
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            place.write(NAME, b"picture")
        assert time.monotonic() - begun < 10
