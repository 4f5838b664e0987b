"""Files that are damaged, renamed or no artifacts at all: refused, named, never run, never allocated for."""

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from models.artifact import load

Forge = Callable[..., Path]
Refused = Callable[[Path], str]
Limit = Callable[[], AbstractContextManager[None]]


def test_a_forged_copy_that_is_whole_loads(forge: Forge) -> None:
    """Or else every refusal could have another reason."""
    assert load(forge()).manifest.category == "plate"


def test_a_file_cut_off_anywhere_is_refused(forge: Forge, refused: Refused) -> None:
    path = forge()
    size = path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    near = {*range(12), header - 1, header, header + 1, size - 9, size - 1}
    for length in sorted({*near, *range(12, header, header // 20), *range(header, size, size // 20)}, reverse=True):
        os.truncate(path, length)
        reason = refused(path)
        assert length < 9 or "truncated" in reason
        assert length < 9 or "Copy it again" in reason
    assert "not a safetensors file" in refused(path)  # it is empty now


def test_a_file_with_something_after_its_end_is_refused(forge: Forge, refused: Refused) -> None:
    path = forge()
    with path.open("ab") as file:
        file.write(b"\0")
    refused(path)


def test_a_single_flipped_bit_anywhere_is_found(forge: Forge, refused: Refused) -> None:
    path = forge()
    size = path.stat().st_size
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    places = {*range(10), *range(10, header, header // 40), *range(header, size, size // 40), size - 1}
    with path.open("r+b", buffering=0) as file:
        for number, place in enumerate(sorted(places)):
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1 << number % 8]))
            refused(path)
            file.seek(place)
            file.write(bytes([byte]))
    load(path)


@pytest.mark.parametrize("name", ["0123456789ab.safetensors", "current.safetensors", "UPPER", "SHORT", "LONG", "OTHER"])
def test_a_name_that_is_not_the_hash_is_refused(forge: Forge, refused: Refused, name: str) -> None:
    path = forge()
    version = path.stem
    as_wrong = {
        "UPPER": f"{version[:-1] + 'A' if version.isdigit() else version.upper()}.safetensors",
        "SHORT": f"{version[:11]}.safetensors",
        "LONG": f"{hashlib.sha256(path.read_bytes()).hexdigest()}.safetensors",
        "OTHER": f"{version}.bin",
    }
    renamed = path.with_name(as_wrong.get(name, name))
    os.link(path, renamed)
    reason = refused(renamed)
    assert "not the hash of its content" in reason
    assert version not in reason.replace(str(renamed), "")  # nobody is told how to get an altered file accepted
    renamed.unlink()


def test_what_is_not_a_file_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it would wait for ever
    for name in (".", "dangling.safetensors", "nowhere", "pipe.safetensors"):
        assert "there is no such file" in refused(tmp_path / name)
    refused(tmp_path / ("x" * 300))


@pytest.mark.parametrize("form", ["pickle", "torch", "framed"])
def test_a_renamed_pickle_is_refused_and_not_run(
    forge: Forge, payload: Callable[[Path], object], refused: Refused, tmp_path: Path, form: str
) -> None:
    target = tmp_path / "pwned"
    content = pickle.dumps(payload(target))
    if form == "torch":
        torch.save(payload(target), tmp_path / "p.pth")
        content = (tmp_path / "p.pth").read_bytes()
    elif form == "framed":
        content = (len(content) + 1).to_bytes(8, "little") + b"{" + content
    refused(forge(content=content))
    assert not target.exists()
    pickle.loads(pickle.dumps(payload(target)))  # the payload is a real one
    assert target.exists()


@pytest.mark.parametrize("claimed", [10 * 2**30, 2**63, 2**64 - 1, 2**24 + 1])
def test_a_header_that_claims_gigabytes_is_refused_unread(
    forge: Forge, refused: Refused, little_memory: Limit, claimed: int
) -> None:
    path = forge(content=claimed.to_bytes(8, "little") + b"{" + b" " * 1000)
    with little_memory():
        assert f"its header claims {claimed:,} bytes" in refused(path)


def test_a_tensor_that_claims_gigabytes_is_refused_unread(
    forge: Forge, refused: Refused, little_memory: Limit, document: dict[str, Any]
) -> None:
    header = {
        "__metadata__": {"jigsight": json.dumps(document)},
        "scorer.mean1": {"dtype": "F32", "shape": [2**30, 4], "data_offsets": [0, 2**34]},
    }
    text = json.dumps(header).encode()
    path = forge(content=len(text).to_bytes(8, "little") + text)
    with little_memory():
        refused(path)


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", "{" * 100_000, '{"a":' * 5000, '{"__metadata__":{"jigsight":1}}', "\0"]
)
def test_headers_that_mean_nothing_are_refused(forge: Forge, refused: Refused, text: str) -> None:
    refused(forge(content=len(text).to_bytes(8, "little") + text.encode()))
