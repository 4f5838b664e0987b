"""Cells as they would be measured, without measuring, and a request for some."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.benchmark.cells import Cell, Figures
from training.benchmark.method import Method
from training.benchmark.request import BenchmarkRequest

FIGURES = Figures(
    image_auroc=0.9,
    pixel_auroc=0.95,
    aupro=0.85,
    false_reject_rate=0.05,
    miss_rate=0.2,
    threshold=3.0,
    threshold_rule="conformal",
    training_seconds=60.0,
    milliseconds=20.0,
    artifact_bytes=10_000_000,
    peak_bytes=1_500_000_000,
    device_bytes=0,
)


@pytest.fixture
def cell() -> Callable[..., Cell]:
    """A measured cell, or with `error` one that failed; any figure may be given."""

    def make(
        category: str, method: str, *, error: str | None = None, kind: str | None = None, **figures: object
    ) -> Cell:
        return Cell.model_validate(
            {
                "category": category,
                "method": method,
                "key": "k",
                "kind": kind,
                "figures": None if error else FIGURES.model_dump() | figures,
                "error": error,
            }
        )

    return make


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., BenchmarkRequest]:
    """A request for methods on the flanges of a folder, as small as can be."""

    def request(data: Path, methods: tuple[Method, ...]) -> BenchmarkRequest:
        return BenchmarkRequest(
            data=data,
            categories=("flange",),
            methods=methods,
            arch="mobilenet_v2",
            weights="none",
            textures=None,
            false_reject_rate=0.25,
            device="cpu",
            output=tmp_path / "out",
        )

    return request
