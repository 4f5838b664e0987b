"""Looking at an inspection afterwards: its picture, its heatmaps, and what is kept of either."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from models.artifact import Artifact, save
from service.app import create_app
from service.settings import Settings

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


def test_the_picture_comes_back_byte_for_byte(client: TestClient, bad: Picture) -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(bad(1))).save(file, "JPEG", quality=95)
    links = client.post(POST, content=file.getvalue()).json()["links"]
    answer = client.get(links["image"])
    assert answer.content == file.getvalue()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.fixture
def dense_client(settings: Settings, dense_path: Path) -> Iterator[TestClient]:
    """A client of a service that leaves a part's good places calm, whatever is beside them."""
    with TestClient(create_app(settings.model_copy(update={"artifacts": dense_path.parent.parent}))) as running:
        yield running


def test_the_four_heatmaps(dense_client: TestClient, bad: Picture) -> None:
    inspection = dense_client.post(POST, content=bad(1)).json()
    path = inspection["links"]["self"] + "/heatmap"
    drawn = {style: dense_client.get(path, params={"style": style}) for style in ("overlay", "heat", "mask", "raw")}
    opened = {style: np.asarray(Image.open(io.BytesIO(drawn[style].content))) for style in ("overlay", "heat", "mask")}
    assert opened["overlay"].shape == opened["heat"].shape == (96, 128, 3)
    assert set(np.unique(opened["mask"])) == {0, 255}
    rows_hit, columns_hit = np.nonzero(opened["mask"])
    x, y, width, height = inspection["regions"][0]["box"]
    assert x <= columns_hit.min() <= columns_hit.max() < x + width
    assert y <= rows_hit.min() <= rows_hit.max() < y + height
    original = np.asarray(Image.open(io.BytesIO(bad(1))))
    np.testing.assert_array_equal(opened["overlay"][:20, :104], original[:20, :104])  # calm where the part is good
    raw = np.load(io.BytesIO(drawn["raw"].content), allow_pickle=False)
    assert drawn["raw"].headers["x-map-shape"] == "16,16"
    assert raw.shape == (16, 16)
    assert float(raw.max()) == pytest.approx(inspection["score"], rel=1e-3)
    assert dense_client.get(path).content == drawn["overlay"].content


def test_the_mask_shows_regions_down_to_the_pixel_threshold(
    settings: Settings, artifact: Artifact, tmp_path: Path, bad: Picture
) -> None:
    record = artifact.manifest.threshold
    reaching = record.model_copy(update={"pixel": record.value / 4})
    manifest = artifact.manifest.model_copy(update={"threshold": reaching})
    save(artifact.detector, manifest, artifact.calibration.scores, folder=tmp_path / "reaching")
    shown = []
    for folder in (settings.artifacts, tmp_path / "reaching"):
        own = settings.model_copy(update={"artifacts": folder, "data": tmp_path / f"data of {folder.name}"})
        with TestClient(create_app(own)) as client:
            inspection = client.post(POST, content=bad(1)).json()
            mask = client.get(inspection["links"]["self"] + "/heatmap?style=mask").content
        area = sum(region["area"] for region in inspection["regions"])
        assert (np.asarray(Image.open(io.BytesIO(mask))) > 0).sum() == pytest.approx(area, rel=0.05)
        shown.append(area)
    assert shown[1] > 1.2 * shown[0]


@pytest.mark.parametrize(
    ("policy", "kept"), [("all", [True, True]), ("rejects", [False, True]), ("none", [False, False])]
)
def test_pictures_are_kept_by_policy(
    settings: Settings, policy: str, kept: list[bool], good: Picture, bad: Picture
) -> None:
    with TestClient(create_app(settings.model_copy(update={"keep_images": policy}))) as client:
        answers = [client.post(POST, content=data).json() for data in (good(1), bad(1))]
        assert [answer["links"]["image"] is not None for answer in answers] == kept
        for answer, there in zip(answers, kept, strict=True):
            path = answer["links"]["self"]
            assert client.get(answer["links"]["heatmap"]).status_code == 200
            assert client.get(f"{path}/image").status_code == (200 if there else 404)
            overlay = client.get(f"{path}/heatmap?style=overlay")
            assert overlay.status_code == (200 if there else 404)
            assert there or "style=heat" in overlay.json()["detail"]
            assert client.get(f"{path}/heatmap?style=heat").status_code == 200


def test_a_picture_whose_file_was_deleted_is_gone(client: TestClient, settings: Settings, bad: Picture) -> None:
    path = client.post(POST, content=bad(1)).json()["links"]["self"]
    for file in settings.pictures.rglob("*"):
        if file.is_file():
            file.unlink()
    for rest in ("/image", "/heatmap?style=overlay"):
        answer = client.get(path + rest)
        assert answer.status_code == 410
        assert "style=heat" in answer.json()["detail"]
    assert client.get(f"{path}/heatmap?style=heat").status_code == 200
