"""What several tests of the models need: forged artifacts, and networks whose batch norms do something.

Forged artifacts are valid by their hash, whatever is in them, as whoever can write into the folder could do.
"""

import hashlib
import json
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from models.artifact import load, read_manifest
from models.backbone import Architecture, Backbone, build_backbone
from models.errors import ArtifactError


class Payload:
    """Unpickled without care, it makes the directory whose name it was given."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.fixture(scope="session")
def payload() -> Callable[[Path], object]:
    """Objects that leave a directory behind when they are unpickled."""
    return Payload


@pytest.fixture(scope="module")
def tensors(artifact_path: Path) -> dict[str, Tensor]:
    """Those of the tiny artifact."""
    return dict(load_file(artifact_path))


@pytest.fixture(scope="module")
def document(artifact_path: Path) -> dict[str, Any]:
    """The tiny artifact's manifest."""
    return dict(read_manifest(artifact_path).model_dump(mode="json"))


@pytest.fixture
def forge(tmp_path: Path, tensors: dict[str, Tensor], document: dict[str, Any]) -> Iterator[Callable[..., Path]]:
    """Write an artifact whose name is its hash; tensors, the manifest's text or all of it may be other ones."""
    written: set[Path] = set()

    def write(
        new_tensors: dict[str, Tensor] | None = None, *, manifest: str | None = None, content: bytes = b""
    ) -> Path:
        metadata = {"jigsight": json.dumps(document) if manifest is None else manifest}
        content = content or save(tensors if new_tensors is None else new_tensors, metadata)
        path = tmp_path / "plate" / f"{hashlib.sha256(content).hexdigest()[:12]}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        written.add(path)
        return path

    yield write
    for path in written:  # 11 MB each
        path.unlink()


@pytest.fixture(scope="session")
def refused() -> Callable[[Path], str]:
    """Why `load` refuses a file; its error must name the file."""

    def reason(path: Path) -> str:
        with pytest.raises(ArtifactError) as caught:
            load(path)
        message, start = str(caught.value), f"{path} is not used: "
        assert message.startswith(start)
        return message.removeprefix(start)

    return reason


@pytest.fixture
def little_memory() -> Callable[[], AbstractContextManager[None]]:
    """Let this process take no more than 256 MB of address space on top of what it has."""
    return _little_memory


@contextmanager
def _little_memory() -> Iterator[None]:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="session")
def make_backbone() -> Callable[[Architecture], Backbone]:
    """A backbone of random weights whose batch norms scale and shift each channel differently; always the same one."""

    def make(arch: Architecture) -> Backbone:
        random = torch.Generator().manual_seed(2)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = build_backbone(arch).eval().requires_grad_(False)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for values, low, high in (
                    (layer.weight, 0.3, 1.1),
                    (layer.bias, -0.2, 0.2),
                    (layer.running_mean, -0.2, 0.2),
                    (layer.running_var, 0.5, 2.0),
                ):
                    assert values is not None
                    values.uniform_(low, high, generator=random)
        return network

    return make
