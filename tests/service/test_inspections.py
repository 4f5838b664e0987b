"""Inspecting over HTTP: verdicts, pictures, heatmaps, and what is stored when the answer arrives."""

import io
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image
from starlette.testclient import TestClient

from models.alignment import AlignmentConfig
from models.artifact import Artifact, load
from models.images import decode, decode_reduced
from models.preprocess import PreprocessConfig
from service.app import create_app
from service.runs import detect
from service.settings import Settings
from service.state import Service

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]


def running(client: TestClient) -> Service:
    service: Service = client.app_state["service"]
    return service


def rows(settings: Settings) -> list[tuple[str, str]]:
    """Identifiers and verdicts, read from the file by another connection."""
    with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
        return connection.execute("SELECT id, verdict FROM inspections ORDER BY id").fetchall()


def test_a_good_part_passes_and_a_defective_one_fails(client: TestClient, good: Picture, bad: Picture) -> None:
    passed = client.post(POST, content=good(1))
    assert passed.status_code == 201
    assert passed.json()["verdict"] == "pass"
    assert passed.json()["regions"] == []
    failed = client.post(POST, content=bad(1)).json()
    assert failed["verdict"] == "fail"
    assert failed["score"] > failed["threshold"] > passed.json()["score"]
    assert failed["margin"] == pytest.approx(1 - failed["score"] / failed["threshold"])
    assert failed["margin"] < 0 < passed.json()["margin"] < 1
    assert failed["p_value"] == pytest.approx(1 / 25)
    x, y, width, height = failed["regions"][0]["box"]
    assert x <= 80
    assert x + width >= 112
    assert y <= 60
    assert y + height >= 84
    assert failed["regions"][0]["peak"] == pytest.approx(failed["score"])
    assert failed["image"] == {"width": 128, "height": 96}


def test_the_score_is_the_detector_s_own(client: TestClient, artifact: Artifact, bad: Picture) -> None:
    (alone,) = detect(artifact, [artifact.detector.preprocess.resize(decode(bad(3)))])
    answer = client.post(POST, content=bad(3)).json()
    assert answer["score"] == pytest.approx(alone.score, rel=1e-4)
    assert answer["version"] == artifact.version
    assert answer["threshold"] == artifact.manifest.threshold.value


def test_a_category_may_have_tiles_and_a_frame_of_its_own(
    make: Callable[..., Path], settings: Settings, tmp_path: Path, bad: Picture
) -> None:
    align = AlignmentConfig(name="rotate", along=1.2)
    preprocess = PreprocessConfig(image_size=32, tiles=2, align=align)
    own = load(make(tmp_path / "artifacts", preprocess=preprocess))
    (alone,) = detect(own, [own.detector.preprocess.resize(decode(bad(1)))])
    with TestClient(create_app(settings.model_copy(update={"artifacts": tmp_path / "artifacts"}))) as client:
        answer = client.post(POST, content=bad(1)).json()
        raw = client.get(answer["links"]["self"] + "/heatmap?style=raw")
    assert answer["verdict"] == "fail"
    assert answer["score"] == pytest.approx(alone.score, rel=1e-4)
    x, y, width, height = answer["regions"][0]["box"]
    assert x < 96 < x + width  # the middle of the defect, in the picture as it came
    assert y < 72 < y + height
    assert raw.headers["x-map-shape"] == "32,32"


def test_the_answer_leads_on(client: TestClient, bad: Picture) -> None:
    answer = client.post(POST, content=bad(1), params={"serial": "A 1", "station": "end of line"})
    inspection = answer.json()
    assert (inspection["serial"], inspection["station"]) == ("A 1", "end of line")
    assert answer.headers["location"] == inspection["links"]["self"] == f"/v1/inspections/{inspection['id']}"
    assert client.get(inspection["links"]["self"]).json() == inspection
    assert client.get(inspection["links"]["heatmap"]).status_code == 200
    assert client.get(inspection["links"]["category"]).json()["version"] == inspection["version"]
    assert set(inspection["durations"]) == {"decode_ms", "queue_ms", "inference_ms"}


def test_links_carry_the_path_that_a_proxy_has_cut_off(settings: Settings, good: Picture) -> None:
    with TestClient(create_app(settings), root_path="/vision") as client:
        links = client.post(POST, content=good(1)).json()["links"]
        assert all(link.startswith("/vision/v1/") for link in links.values())


def test_what_is_answered_is_committed(client: TestClient, settings: Settings, good: Picture, bad: Picture) -> None:
    for count, data in enumerate((good(1), bad(1), good(2)), start=1):
        answer = client.post(POST, content=data).json()
        assert len(rows(settings)) == count
        assert rows(settings)[-1] == (answer["id"].replace("-", ""), answer["verdict"])


def test_fifty_at_once_get_their_own_results(
    client: TestClient, artifact: Artifact, good: Picture, bad: Picture
) -> None:
    pictures = [bad(seed) if seed % 3 == 0 else good(seed) for seed in range(50)]
    expected = [detect(artifact, [artifact.detector.preprocess.resize(decode(data))])[0].score for data in pictures]
    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(lambda data: client.post(POST, content=data), pictures))
    assert [answer.status_code for answer in answers] == [201] * 50
    assert [answer.json()["score"] for answer in answers] == pytest.approx(expected, rel=1e-4)
    assert [answer.json()["verdict"] for answer in answers] == ["fail" if n % 3 == 0 else "pass" for n in range(50)]
    assert len({answer.json()["id"] for answer in answers}) == 50


def test_a_form_is_as_good_as_a_body(client: TestClient, bad: Picture) -> None:
    plain = client.post(POST, content=bad(1), params={"serial": "7"}).json()
    form = client.post(POST, files={"image": ("part.png", bad(1))}, data={"serial": "7", "station": "east"})
    assert form.status_code == 201
    assert form.json()["score"] == pytest.approx(plain["score"], rel=1e-4)
    assert (form.json()["serial"], form.json()["station"]) == ("7", "east")
    assert client.get(form.json()["links"]["image"]).content == bad(1)


def test_the_content_type_is_not_believed(client: TestClient, good: Picture) -> None:
    for claimed in ("image/jpeg", "application/json", "application/x-www-form-urlencoded", "nonsense"):
        answer = client.post(POST, content=good(1), headers={"content-type": claimed})
        assert answer.status_code == 201
        assert client.get(answer.json()["links"]["image"]).headers["content-type"] == "image/png"


def test_an_upright_picture_is_judged_whatever_its_exif_says(client: TestClient, bad: Picture) -> None:
    turned = io.BytesIO()
    picture = Image.open(io.BytesIO(bad(1))).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise"
    picture.save(turned, "PNG", exif=exif)
    plain, rotated = client.post(POST, content=bad(1)).json(), client.post(POST, content=turned.getvalue()).json()
    assert rotated["image"] == plain["image"] == {"width": 128, "height": 96}
    assert rotated["score"] == pytest.approx(plain["score"], rel=1e-4)
    assert client.get(rotated["links"]["heatmap"]).status_code == 200


def test_a_restart_forgets_nothing_even_without_the_artifact(
    make: Callable[..., Path], settings: Settings, tmp_path: Path, bad: Picture
) -> None:
    folder = tmp_path / "artifacts"
    path = make(folder)
    moved = settings.model_copy(update={"artifacts": folder})
    with TestClient(create_app(moved)) as client:
        before = client.post(POST, content=bad(1)).json()
        overlay = client.get(before["links"]["heatmap"]).content
    path.unlink()
    with TestClient(create_app(moved)) as client:
        assert client.get(before["links"]["self"]).json() == before
        assert client.get(before["links"]["heatmap"]).content == overlay
        assert client.post(POST, content=bad(1)).status_code == 503


def test_an_unknown_category_names_those_that_there_are(client: TestClient, good: Picture) -> None:
    answer = client.post("/v1/categories/plaet/inspections", content=good(1))
    assert answer.status_code == 404
    assert "'plaet'" in answer.json()["detail"]
    assert "plate" in answer.json()["detail"]


def test_when_all_places_are_taken_one_is_told_to_come_back(settings: Settings, good: Picture) -> None:
    with TestClient(create_app(settings.model_copy(update={"queue_limit": 2}))) as client:
        engine = running(client).engine
        with engine.admit("plate"), engine.admit("plate"):
            answer = client.post(POST, content=good(1))
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
            assert client.post(POST).status_code == 503  # before anything of the body was read
        assert client.post(POST, content=good(1)).status_code == 201
    assert len(rows(settings)) == 1


def test_a_part_in_hand_takes_a_place_until_it_is_answered(settings: Settings, good: Picture) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        entered.set()
        assert leave.wait(timeout=60)

    with TestClient(create_app(settings.model_copy(update={"queue_limit": 1}))) as client, ThreadPoolExecutor(1) as one:
        running(client).registry.artifact("plate").detector.register_forward_pre_hook(hold)
        first = one.submit(client.post, POST, content=good(1))
        assert entered.wait(timeout=60)
        assert client.post(POST, content=good(2)).status_code == 503
        leave.set()
        assert first.result().status_code == 201
        assert client.post(POST, content=good(2)).status_code == 201


def test_more_at_once_than_there_are_places_is_answered_too(settings: Settings, good: Picture) -> None:
    with TestClient(create_app(settings.model_copy(update={"queue_limit": 3}))) as client:
        with ThreadPoolExecutor(30) as threads:
            answers = list(threads.map(lambda seed: client.post(POST, content=good(seed)), range(30)))
        counts = {status: [a.status_code for a in answers].count(status) for status in (201, 503)}
        assert counts[201] >= 3
        assert sum(counts.values()) == 30
        assert client.post(POST, content=good(0)).status_code == 201  # every place was given back
    assert len(rows(settings)) == counts[201] + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_never_a_pass(
    client: TestClient, settings: Settings, good: Picture, value: float
) -> None:
    scorer = running(client).registry.artifact("plate").detector.scorer
    with torch.no_grad():
        scorer.mean1.fill_(value)
    answer = client.post(POST, content=good(1))
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:jigsight:problem:score-error"
    assert "could not be judged" in answer.json()["detail"]
    assert rows(settings) == []


def test_a_database_that_fails_means_no_verdict(client: TestClient, settings: Settings, good: Picture) -> None:
    with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
        connection.execute("ALTER TABLE inspections RENAME TO elsewhere")
    answer = client.post(POST, content=good(1))
    assert answer.status_code == 503
    assert "verdict" not in answer.json()
    assert "elsewhere" not in answer.text
    with sqlite3.connect(settings.data / "jigsight.sqlite") as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO inspections")
    assert client.post(POST, content=good(1)).status_code == 201


def test_a_disk_that_refuses_pictures_means_no_verdict(client: TestClient, settings: Settings, good: Picture) -> None:
    settings.pictures.write_bytes(b"a file where a folder must be")
    answer = client.post(POST, content=good(1))
    assert answer.status_code == 503
    assert rows(settings) == []


def test_ids_that_are_unknown_or_none(client: TestClient) -> None:
    for path in ("", "/image", "/heatmap"):
        unknown = client.get(f"/v1/inspections/01890000-0000-7000-8000-000000000000{path}")
        assert unknown.status_code == 404
        assert client.get(f"/v1/inspections/nonsense{path}").status_code == 422


def test_a_large_jpeg_is_judged_in_its_own_pixels(
    client: TestClient, artifact: Artifact, bad: Picture, enlarged: Callable[..., bytes]
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    data = enlarged(bad(1), exif=exif)  # it says that it is upside down
    decoded = decode_reduced(data, least=128).rgb
    assert decoded.shape == (192, 256, 3)
    (alone,) = detect(artifact, [artifact.detector.preprocess.resize(decoded)])
    answer = client.post(POST, content=data).json()
    assert answer["score"] == pytest.approx(alone.score, rel=1e-4)
    assert answer["image"] == {"width": 1024, "height": 768}
    x, y, width, height = answer["regions"][0]["box"]
    assert x <= 1024 - 896  # the defect, in the picture as it is looked at
    assert x + width >= 1024 - 640
    assert y <= 768 - 672
    assert y + height >= 768 - 480
    overlay = client.get(answer["links"]["heatmap"])
    with Image.open(io.BytesIO(overlay.content)) as drawn:
        assert drawn.size == (1024, 768)
