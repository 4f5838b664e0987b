"""The joint command: whatever a person can mend is one sentence with what it is about, and exit status 2."""

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import jigsight
from training.samples import write_category

Say = Callable[..., str]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["jigsight", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            jigsight.main()
        assert ended.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        return printed.err

    return run


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_category(folder, "cloth", train=4, test_good=1, test_defective=1, size=64)
    return folder


@pytest.mark.parametrize("name", ["a[/b].safetensors", "x[jigsaw]y.safetensors", "[red]z\\"])
def test_brackets_in_a_path_are_the_person_s_own(said: Say, name: str) -> None:
    message = said("evaluate", name, "--data", "d")
    assert message.startswith(f"error: {name} is not used: ")
    assert message.count("\n") == 1


def test_a_value_that_a_configuration_refuses(said: Say, parts: Path, tmp_path: Path) -> None:
    message = said("synth", "--data", parts, "--category", "cloth", "--image-size", 100, "-o", tmp_path / "a.png")
    assert message.startswith("error: --image-size must be a multiple of 32, not 100")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "FILE/x"],
        ["demo", "--once", "--dir", "FILE/x"],
        ["synth", "--data", "nowhere", "-o", "FILE/x.png"],
        ["train", "--data", "nowhere", "--json", "FILE/x.json"],
        ["train", "--data", "nowhere", "--json", "."],
        ["train", "--data", "nowhere", "--artifacts", "FILE"],
        ["evaluate", "missing.safetensors", "--data", "nowhere", "--report", "FILE"],
        ["evaluate", "missing.safetensors", "--data", "nowhere", "--json", "FILE/x"],
    ],
    ids=" ".join,
)
def test_places_that_cannot_be_written_to_are_found_out_first(
    said: Say,
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    message = said(*command)
    assert message.startswith("error: ")
    assert "FILE" in message or "is a folder" in message
    assert "nowhere" not in message
    assert "missing" not in message


def test_an_error_of_the_system_names_the_file(said: Say, parts: Path, tmp_path: Path) -> None:
    message = said("synth", "--data", parts, "--category", "cloth", "-o", "/dev/full")
    assert message == "error: The system says: No space left on device.\n"
    message = said("synth", "--data", parts, "--category", "cloth", "-o", tmp_path / ("x" * 300 + ".png"))
    assert "File name too long" in message
    assert "xxx.png" in message.replace("\n", "")


def test_the_version_is_the_package_s() -> None:
    result = CliRunner().invoke(jigsight.app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"jigsight {version('jigsight')}\n")
    assert "--version" in CliRunner(env={"COLUMNS": "120"}).invoke(jigsight.app, ["--help"]).stdout


def test_without_the_training_extra_the_service_works_and_training_says_what_to_install() -> None:
    script = "import sys; sys.modules['lightning_fabric'] = None; import jigsight; jigsight.main()"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", script, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)

    trained = run("train", "--data", "x")
    assert trained.returncode == 2
    assert "jigsight[training]" in trained.stderr
    listed = run("--help")
    assert listed.returncode == 0
    assert "serve" in listed.stdout
    assert "evaluate" not in listed.stdout
