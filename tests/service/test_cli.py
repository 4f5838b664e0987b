"""The commands: what `inspect` prints and exits with, and how `serve` refuses."""

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from models.artifact import Artifact
from models.errors import ArtifactError, DeviceError, JigSightError
from models.images import decode
from service import cli
from service.runs import detect

Picture = Callable[[int], bytes]


@pytest.fixture
def app() -> typer.Typer:
    application = typer.Typer()
    cli.register(application)
    return application


@pytest.fixture
def files(tmp_path: Path, good: Picture, bad: Picture) -> dict[str, Path]:
    contents = {"good": good(1), "bad": bad(1), "text": b"not a picture", "cut": good(1)[:2000]}
    paths = {name: tmp_path / f"{name}.png" for name in contents}
    for name, data in contents.items():
        paths[name].write_bytes(data)
    Image.new("RGB", (40, 31)).save(tmp_path / "tiny.png")
    return paths | {name: tmp_path / f"{name}.png" for name in ("tiny", "missing")}


@pytest.mark.parametrize(
    ("names", "code"),
    [(["good"], 0), (["good", "bad"], 1), (["good", "text"], 2), (["bad", "missing"], 2), (["cut"], 2), (["tiny"], 2)],
)
def test_exit_codes(app: typer.Typer, artifact_path: Path, files: dict[str, Path], names: list[str], code: int) -> None:
    outcome = CliRunner().invoke(app, ["inspect", str(artifact_path), *(str(files[name]) for name in names)])
    assert outcome.exit_code == code
    for name in names:
        if name not in ("good", "bad"):
            assert f"{files[name]}: " in outcome.stderr


def test_the_table_holds_every_picture(app: typer.Typer, artifact_path: Path, files: dict[str, Path]) -> None:
    runner = CliRunner(env={"COLUMNS": "300"})
    outcome = runner.invoke(app, ["inspect", str(artifact_path), *map(str, files.values())])
    for words in (("good.png", "pass"), ("bad.png", "fail"), ("text.png", "not judged"), ("missing.png", "not judged")):
        assert any(all(word in line for word in words) for line in outcome.stdout.splitlines()), words


def test_json_has_the_detector_s_own_numbers(
    app: typer.Typer, artifact_path: Path, artifact: Artifact, files: dict[str, Path], bad: Picture
) -> None:
    arguments = ["inspect", str(artifact_path), str(files["bad"]), str(files["cut"]), "--json"]
    arguments += ["--precision", "float32"]  # as `artifact` computes
    document = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (document["category"], document["version"]) == ("plate", artifact.version)
    judged, refused = document["images"]
    (alone,) = detect(artifact, [artifact.detector.preprocess.resize(decode(bad(1)))])
    assert judged["verdict"] == "fail"
    assert judged["score"] == pytest.approx(alone.score, rel=1e-4)
    assert judged["margin"] == pytest.approx(1 - alone.score / artifact.manifest.threshold.value, rel=1e-4)
    assert (judged["width"], judged["height"]) == (128, 96)
    assert judged["regions"][0]["peak"] == pytest.approx(alone.score, rel=1e-4)
    assert refused["verdict"] is None
    assert "PNG" in refused["error"]


def test_overlays_are_written_and_do_not_overwrite_one_another(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, files: dict[str, Path], good: Picture
) -> None:
    twin = tmp_path / "other folder" / "bad.png"
    twin.parent.mkdir()
    twin.write_bytes(good(2))
    out = tmp_path / "out" / "maps"
    arguments = ["inspect", str(artifact_path), str(files["bad"]), str(twin), "--heatmaps", str(out), "--json"]
    images = json.loads(CliRunner().invoke(app, arguments).stdout)["images"]
    names = [f"{tmp_path.name}-bad.png", "other folder-bad.png"]
    assert [Path(each["heatmap"]) for each in images] == [out / name for name in names]
    for each in images:
        with Image.open(each["heatmap"]) as drawn:
            assert drawn.size == (128, 96)


def test_names_of_overlays_are_never_shared(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, files: dict[str, Path]
) -> None:
    out = tmp_path / "maps"
    twice = [str(files["bad"])] * 2
    arguments = ["inspect", str(artifact_path), *twice, str(files["good"]), "--heatmaps", str(out), "--json"]
    images = json.loads(CliRunner().invoke(app, arguments).stdout)["images"]
    folder = tmp_path.name
    names = [f"{folder}-bad.png", f"{folder}-bad-2.png", "good.png"]
    assert [Path(each["heatmap"]) for each in images] == [out / name for name in names]


def at_a_terminal(app: typer.Typer, *arguments: str, columns: int) -> list[str]:
    """The lines that a terminal of this width shows, without their colours."""
    runner = CliRunner(env={"COLUMNS": str(columns), "FORCE_COLOR": "1"})
    return re.sub(r"\x1b\[[0-9;]*m", "", runner.invoke(app, arguments).stdout).splitlines()


def test_a_narrow_table_keeps_what_tells_pictures_and_says_where_heatmaps_are(
    app: typer.Typer,
    artifact_path: Path,
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    crack = tmp_path / "parts/crack/000.png"
    crack.parent.mkdir(parents=True)
    crack.write_bytes(files["bad"].read_bytes())
    arguments = ["inspect", str(artifact_path), str(crack), "good.png", "--heatmaps", "out"]
    printed = at_a_terminal(app, *arguments, columns=60)
    names = [line[: printed[1].index("verdict")].replace(" ", "") for line in printed[2:-1]]
    assert "".join(names) == "…/crack/000.png→000.pnggood.png→good.png"
    assert printed[-1].strip() == "→ heatmaps, in out"
    assert "threshold" in printed[1]


def test_in_a_file_each_picture_has_one_line_with_its_whole_path(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, files: dict[str, Path]
) -> None:
    long = tmp_path / f"{'part-' * 40}1.png"
    long.write_bytes(files["bad"].read_bytes())
    arguments = ["inspect", str(artifact_path), str(long), str(files["good"]), "--heatmaps", str(tmp_path / "out")]
    printed = CliRunner(env={"COLUMNS": "40"}).invoke(app, arguments).stdout
    _, _, first, second, _ = printed.splitlines()
    assert first.split()[:4] == [str(long), "→", long.name, "fail"]
    assert second.split()[:4] == [str(files["good"]), "→", "good.png", "pass"]


def test_a_usual_terminal_has_room_for_usual_names(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, files: dict[str, Path]
) -> None:
    usual = tmp_path / "parts/crack/2026-11-23_0123.png"
    usual.parent.mkdir(parents=True)
    usual.write_bytes(files["bad"].read_bytes())
    printed = at_a_terminal(app, "inspect", str(artifact_path), str(usual), columns=80)
    assert printed[2].split()[:2] == ["…/crack/2026-11-23_0123.png"[:27], "fail"]


def test_a_heatmap_that_cannot_be_written_costs_no_verdict(
    app: typer.Typer, artifact_path: Path, files: dict[str, Path]
) -> None:
    blocked = files["text"]  # a file where a folder must be
    arguments = ["inspect", str(artifact_path), str(files["bad"]), "--heatmaps", str(blocked)]
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert outcome.exit_code == 2
    (entry,) = json.loads(outcome.stdout)["images"]
    assert (entry["verdict"], entry["heatmap"]) == ("fail", None)
    assert str(blocked / "bad.png") in entry["heatmap_error"]
    assert "cannot be written" in outcome.stderr
    table = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments).stdout
    assert "fail" in table
    assert "not judged" not in table


def test_a_category_s_folder_stands_for_its_newest_artifact(
    app: typer.Typer, make: Callable[..., Path], tmp_path: Path, files: dict[str, Path]
) -> None:
    older, newer = (make(tmp_path / "artifacts", seed=seed) for seed in (1, 2))
    os.utime(older, (1_000_000_000, 1_000_000_000))
    outcome = CliRunner().invoke(app, ["inspect", str(newer.parent), str(files["good"]), "--json"])
    assert json.loads(outcome.stdout)["version"] == newer.stem
    assert str(newer) in outcome.stderr


def test_an_artifact_that_cannot_be_read(app: typer.Typer, files: dict[str, Path]) -> None:
    outcome = CliRunner().invoke(app, ["inspect", str(files["text"]), str(files["good"])])
    assert isinstance(outcome.exception, ArtifactError)


def refusal(app: typer.Typer, *arguments: str) -> str:
    outcome = CliRunner().invoke(app, ["serve", *arguments])
    assert isinstance(outcome.exception, JigSightError)
    return str(outcome.exception)


def test_serve_refuses_what_it_cannot_work_with(app: typer.Typer, artifact_path: Path, tmp_path: Path) -> None:
    here = ["--artifacts", str(artifact_path.parent.parent), "--device", "cpu", "--data", str(tmp_path / "data")]
    assert "no folder" in refusal(app, "--artifacts", str(tmp_path / "nowhere"))
    assert "port" in refusal(app, *here, "--port", "70000")
    (tmp_path / "file").write_bytes(b"")
    for place in ("file", "file/data"):
        said = refusal(app, *here[:-1], str(tmp_path / place))
        assert said.startswith(f"{tmp_path / place} cannot be a folder: {tmp_path / 'file'} is a file. Give --data ")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port}: Address already in use" in refusal(app, *here, "--port", port)


@pytest.mark.parametrize("way", ["option", "environment"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "camera-pc"])
def test_without_a_key_it_listens_on_this_machine_only(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, way: str
) -> None:
    here = ["--artifacts", str(artifact_path.parent.parent), "--device", "cpu", "--data", str(tmp_path / "data")]
    if way == "option":
        here += ["--host", host]
    else:
        monkeypatch.setenv("JIGSIGHT_HOST", host)
    said = refusal(app, *here)
    assert f"not on {host}" in said
    assert "jigsight keys create" in said


def test_options_override_the_environment(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JIGSIGHT_ARTIFACTS", str(tmp_path / "from the environment"))
    assert "from the environment" in refusal(app)
    assert "from an option" in refusal(app, "--artifacts", str(tmp_path / "from an option"))


def test_pictures_are_judged_in_the_precision_that_is_asked_for(
    app: typer.Typer, artifact_path: Path, files: dict[str, Path]
) -> None:
    def inspected(precision: str) -> dict[str, Any]:
        arguments = ["inspect", str(artifact_path), str(files["bad"]), "--json", "--device", "cpu"]
        (image,) = json.loads(CliRunner().invoke(app, [*arguments, "--precision", precision]).stdout)["images"]
        return dict(image)

    single, half = inspected("float32"), inspected("bfloat16")
    assert single["score"] != half["score"]
    assert single["score"] == pytest.approx(half["score"], rel=0.05)
    assert (single["verdict"], half["verdict"]) == ("fail", "fail")


@pytest.mark.parametrize("way", ["option", "environment"])
def test_what_the_device_cannot_compute_in_is_refused_at_once(
    app: typer.Typer, artifact_path: Path, files: dict[str, Path], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ["--artifacts", str(artifact_path.parent.parent), "--device", "cpu"]
    if way == "option":
        here += ["--precision", "float16"]
        inspected = CliRunner().invoke(app, ["inspect", str(artifact_path), str(files["good"]), *here[2:]])
        assert isinstance(inspected.exception, DeviceError)
    else:
        monkeypatch.setenv("JIGSIGHT_PRECISION", "float16")
    assert "float16 is for CUDA" in refusal(app, *here)


def test_overlays_of_large_jpegs_are_drawn_on_whole_pictures(
    app: typer.Typer, artifact_path: Path, tmp_path: Path, bad: Picture, enlarged: Callable[..., bytes]
) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(enlarged(bad(1)))
    arguments = ["inspect", str(artifact_path), str(large), "--heatmaps", str(tmp_path / "maps"), "--json"]
    (judged,) = json.loads(CliRunner().invoke(app, arguments).stdout)["images"]
    assert (judged["verdict"], judged["width"], judged["height"]) == ("fail", 1024, 768)
    with Image.open(judged["heatmap"]) as drawn:
        assert drawn.size == (1024, 768)
