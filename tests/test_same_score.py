"""The same picture has the same score on every way in: `inspect`, `evaluate` and HTTP, whatever the file."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

import jigsight
from service.app import create_app
from service.settings import Settings

RELATIVE = 1e-4
TURN_RIGHT = 6  # the EXIF orientation of a camera that was turned: rotate by 90 degrees to look at it


@pytest.fixture(scope="module")
def grey(good: Callable[[int], bytes]) -> np.ndarray:
    """One picture (h, w) uint8."""
    return np.asarray(Image.open(io.BytesIO(good(7))).convert("L"))


def _png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def _variants(grey: np.ndarray) -> dict[str, bytes]:
    rgb = np.repeat(grey[:, :, None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = TURN_RIGHT
    turned = np.ascontiguousarray(np.rot90(rgb))  # what a camera stores that was turned
    alpha = np.full(grey.shape, 255, np.uint8)
    alpha[::2] = 0
    tiff = io.BytesIO()
    Image.fromarray(rgb).save(tiff, "TIFF")
    return {
        "rgb.png": _png(Image.fromarray(rgb)),
        "grey.png": _png(Image.fromarray(grey)),
        "rgba.png": _png(Image.fromarray(np.dstack([rgb, alpha]))),
        "sixteen_bit.png": _png(Image.fromarray(grey.astype(np.uint16) * 257)),
        "exif_turned.png": _png(Image.fromarray(turned), exif=exif),
        "rgb.tiff": tiff.getvalue(),
    }


@pytest.fixture(scope="module")
def files(grey: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All variants as good test pictures of a category, in MVTec AD's layout."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "plate" / "test" / "good"
    folder.mkdir(parents=True)
    for name, content in _variants(grey).items():
        (folder / name).write_bytes(content)
    return data


def _run(*arguments: object) -> str:
    result = CliRunner().invoke(jigsight.app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code in (0, 1), result.output
    return result.stdout


def _inspected(artifact: Path, files: Path) -> dict[str, float]:
    paths = sorted((files / "plate/test/good").iterdir())
    document = json.loads(_run("inspect", artifact, *paths, "--json", "--device", "cpu"))
    return {Path(each["path"]).name: each["score"] for each in document["images"]}


def _evaluated(artifact: Path, files: Path, folder: Path) -> dict[str, float]:
    _run("evaluate", artifact, "--data", files, "--json", folder / "e.json", "--device", "cpu")
    document = json.loads((folder / "e.json").read_text())
    return {Path(image["path"]).name: image["score"] for image in document["images"]}


def _posted(artifact: Path, files: Path, folder: Path) -> dict[str, float]:
    settings = Settings(artifacts=artifact.parent.parent, data=folder / "service", device="cpu")
    with TestClient(create_app(settings), base_url="http://localhost", client=("127.0.0.1", 50_000)) as client:
        answers = {
            path.name: client.post("/v1/categories/plate/inspections", content=path.read_bytes())
            for path in (files / "plate/test/good").iterdir()
        }
    assert {answer.status_code for answer in answers.values()} == {201}
    return {name: answer.json()["score"] for name, answer in answers.items()}


def test_every_way_in_and_every_kind_of_file_gives_one_score(
    artifact_path: Path, grey: np.ndarray, files: Path, tmp_path: Path
) -> None:
    ways = {
        "inspect": _inspected(artifact_path, files),
        "evaluate": _evaluated(artifact_path, files, tmp_path),
        "http": _posted(artifact_path, files, tmp_path),
    }
    expected = ways["inspect"]["rgb.png"]
    assert expected > 0
    for way, scores in ways.items():
        assert scores.keys() == _variants(grey).keys(), way
        for name, score in scores.items():
            assert score == pytest.approx(expected, rel=RELATIVE), (way, name)


def test_another_picture_has_another_score(artifact_path: Path, files: Path, tmp_path: Path, grey: np.ndarray) -> None:
    other = tmp_path / "other.png"
    other.write_bytes(_png(Image.fromarray(255 - grey)))
    document = json.loads(_run("inspect", artifact_path, other, "--json", "--device", "cpu"))
    same = _inspected(artifact_path, files)["rgb.png"]
    assert abs(document["images"][0]["score"] - same) > 100 * RELATIVE * same
