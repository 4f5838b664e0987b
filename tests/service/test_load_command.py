"""`jigsight load` against a server process: what it prints, writes and exits with."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from models.errors import JigSightError
from service import load_command

Picture = Callable[[int], bytes]
Serving = Callable[..., AbstractContextManager[tuple[subprocess.Popen[str], str]]]


@pytest.fixture(scope="module")
def address(serving: Serving, artifact_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the tests of this module share."""
    with serving(artifact_path.parent.parent, tmp_path_factory.mktemp("data")) as (_, address):
        yield address


@pytest.fixture
def pictures(tmp_path: Path, good: Picture, bad: Picture) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, data in enumerate((good(1), good(2), bad(3))):
        (folder / f"{number}.png").write_bytes(data)
    return folder


def jigsight_load(*arguments: str | Path) -> Result:
    app = typer.Typer()
    load_command.register(app)
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(each) for each in arguments])


def test_all_are_judged(address: str, pictures: Path, tmp_path: Path) -> None:
    file = tmp_path / "made" / "figures.json"
    arguments = (address, "--category", "plate", "--images", pictures, "--rate", "30", "--seconds", "0.5")
    outcome = jigsight_load(*arguments, "--serial-prefix", "A-", "--json", file)
    assert outcome.exit_code == 0, outcome.output
    assert "offered    30.0/s (15 in 0.5 s" in outcome.stdout
    assert "15 judged: 5 fail, 10 pass" in outcome.stdout
    document = json.loads(file.read_text())
    assert (document["sent"], document["verdicts"], document["refusals"]) == (15, {"pass": 10, "fail": 5}, [])
    times = document["accepted_ms"]
    assert 0 < times["p50"] <= times["p90"] <= times["p95"] <= times["p99"] <= times["max"]


def test_what_is_not_judged_is_told(address: str, pictures: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_bytes(b"not a picture")
    arguments = (address, text, "--category", "plate", "--images", pictures, "--rate", "20", "--seconds", "0.4")
    outcome = jigsight_load(*arguments, "--poisson", "--seed", "1", "--json", "-")
    assert outcome.exit_code == 1
    (refusal,) = json.loads(outcome.stdout)["refusals"]
    assert refusal["status"] == 415
    assert refusal["kind"] == "urn:jigsight:problem:unsupported-image"
    assert all(words in outcome.stderr for words in ("415", "unsupported-image", "none of JPEG, PNG"))


def test_saturation(address: str, pictures: Path) -> None:
    arguments = (address, "--category", "plate", "--images", pictures, "--saturate", "--connections", "3")
    outcome = jigsight_load(*arguments, "--seconds", "0.5", "--json", "-")
    assert outcome.exit_code == 0
    document = json.loads(outcome.stdout)
    assert document["planned_per_second"] is None
    assert document["accepted"] == document["sent"] > 3
    assert document["achieved_per_second"] == pytest.approx(document["accepted"] / 0.5, rel=0.9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--category", "nope", "--rate", "5"), "There is no category 'nope'. Served are: plate."),
        (("--category", "plate"), "either --rate PICTURES-A-SECOND or --saturate"),
        (("--category", "plate", "--rate", "5", "--saturate"), "either --rate PICTURES-A-SECOND or --saturate"),
    ],
)
def test_what_it_cannot_do(address: str, pictures: Path, arguments: tuple[str, ...], says: str) -> None:
    outcome = jigsight_load(address, "--images", pictures, *arguments)
    assert isinstance(outcome.exception, JigSightError)
    assert says in str(outcome.exception)


@pytest.mark.parametrize(("file", "says"), [("made", "is a folder"), ("made/figures", "cannot be a folder")])
def test_where_no_figures_can_be_written_nothing_is_sent(pictures: Path, tmp_path: Path, file: str, says: str) -> None:
    (tmp_path / "made").mkdir() if says == "is a folder" else (tmp_path / "made").write_text("")
    arguments = ("http://127.0.0.1:1", "--category", "plate", "--images", pictures, "--rate", "5")
    outcome = jigsight_load(*arguments, "--json", tmp_path / file)
    assert isinstance(outcome.exception, JigSightError)
    assert says in str(outcome.exception)


def test_without_its_extra_it_says_what_to_install(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_command, "find_spec", lambda _: None)
    outcome = jigsight_load("http://127.0.0.1:1", "--category", "plate", "--images", pictures, "--rate", "5")
    assert "jigsight[client]" in str(outcome.exception)
