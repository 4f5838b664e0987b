"""`jigsight keys`: what it prints, stores, notes and refuses."""

import getpass
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from service import cli
from service.access.guard import Guard
from service.access.principal import Principal
from service.errors import KeyRefused, StartupError
from service.storage.audit import Audit, Wanted
from service.storage.database import open_database, shown
from service.storage.keys import Keys

Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The commands, on an empty database."""
    open_database(database_url).close()
    monkeypatch.setenv("JIGSIGHT_DATABASE_URL", database_url)
    application = typer.Typer()
    cli.register(application)

    def invoke(*arguments: str) -> Result:
        return CliRunner(env={"COLUMNS": "300"}).invoke(application, ["keys", *arguments])

    return invoke


def listed(run: Run) -> dict[str, dict[str, object]]:
    return {each["name"]: each for each in json.loads(run("list", "--json").stdout)["keys"]}


def test_a_new_key_is_printed_alone_and_is_let_in(run: Run, database_url: str) -> None:
    outcome = run("create", "camera", "--scope", "inspect", "--scope", "read")
    assert outcome.exit_code == 0
    assert re.fullmatch(r"jsk_[A-Za-z0-9_-]{43}\n", outcome.stdout)
    assert "cannot be shown again" in outcome.stderr
    assert "first key" in outcome.stderr
    assert "first key" not in run("create", "second", "--scope", "read").stderr
    database = open_database(database_url)
    guard = Guard(Keys(database), local=True, every=3600)
    guard.refresh()
    assert guard.admit(outcome.stdout.strip()) == Principal("camera", frozenset({"inspect", "read"}))
    database.close()


def test_the_secret_is_nowhere_in_the_database(run: Run, database_url: str) -> None:
    secret = run("create", "camera", "--scope", "admin").stdout.strip()
    database = open_database(database_url)
    everything = repr((Keys(database).all(), Audit(database).find(Wanted(), limit=10)))
    database.close()
    assert secret not in everything
    assert secret.removeprefix("jsk_") not in everything


def test_what_was_done_is_noted_under_the_user_s_name(run: Run, database_url: str) -> None:
    run("create", "camera", "--scope", "read", "--rate", "20", "--expires", "2999-01-01")
    run("revoke", "camera")
    run("revoke", "camera")
    database = open_database(database_url)
    revoked, created = Audit(database).find(Wanted(), limit=10)
    database.close()
    assert created.actor == revoked.actor == f"command line, {getpass.getuser()}"
    assert (created.action, created.subject) == ("create key", "key camera")
    assert (revoked.action, revoked.subject) == ("revoke key", "key camera")
    assert created.detail == {"scopes": ["read"], "rate_limit": 20.0, "expires_at": "2999-01-01T00:00:00+00:00"}


def test_lists(run: Run) -> None:
    assert "no API keys" in run("list").stdout
    assert listed(run) == {}
    run("create", "camera", "--scope", "inspect", "--rate", "2.5")
    run("create", "mes", "--scope", "read", "--expires", "90d")
    assert "is revoked" in run("revoke", "mes").stderr
    assert "was already revoked" in run("revoke", "mes").stderr
    found = listed(run)
    assert {name: each["state"] for name, each in found.items()} == {"camera": "valid", "mes": "revoked"}
    assert (found["camera"]["scopes"], found["camera"]["rate_limit"]) == (["inspect"], 2.5)
    assert not any("sha256" in each for each in found.values())
    table = run("list").stdout
    for words in (("camera", "valid", "inspect", "2.5"), ("mes", "revoked", "read")):
        assert any(all(word in line for word in words) for line in table.splitlines()), words


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "a b", "--scope", "read"], "'a b'"),
        (["create", "x", "--scope", "write"], "no scope write"),
        (["create", "x", "--scope", "read", "--expires", "1999-01-01"], "already"),
        (["create", "x", "--scope", "read", "--rate", "0"], "no limit"),
        (["create", "taken", "--scope", "read"], "named taken"),
        (["revoke", "nobody"], "'nobody'"),
    ],
)
def test_refusals(run: Run, arguments: list[str], said: str) -> None:
    run("create", "taken", "--scope", "read")
    outcome = run(*arguments)
    assert isinstance(outcome.exception, KeyRefused)
    assert said in str(outcome.exception)
    assert outcome.stdout == ""
    assert set(listed(run)) == {"taken"}


def test_a_key_has_a_scope(run: Run) -> None:
    assert run("create", "x").exit_code == 2
    assert listed(run) == {}


@pytest.mark.parametrize("arguments", [["list"], ["revoke", "camera"]])
def test_what_does_not_make_a_key_makes_no_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.delenv("JIGSIGHT_DATABASE_URL")
    outcome = run(*arguments, "--data", str(tmp_path / "elsewhere"))
    assert isinstance(outcome.exception, StartupError)
    for said in (str(tmp_path / "elsewhere" / "jigsight.sqlite"), "--data", "JIGSIGHT_DATABASE_URL"):
        assert said in str(outcome.exception)
    assert not (tmp_path / "elsewhere").exists()


def test_each_command_names_the_database(run: Run, database_url: str) -> None:
    for arguments in (["create", "camera", "--scope", "read"], ["list", "--json"], ["list"], ["revoke", "camera"]):
        assert shown(database_url) in run(*arguments).stderr


def test_the_folder_is_that_of_the_service(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JIGSIGHT_DATABASE_URL")
    run("create", "camera", "--scope", "read", "--data", str(tmp_path / "data"))
    assert (tmp_path / "data" / "jigsight.sqlite").is_file()


def test_a_password_is_not_printed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSIGHT_DATABASE_URL", "postgresql://ann:geheim@127.0.0.1:1/x")
    outcome = run("list")
    assert isinstance(outcome.exception, StartupError)
    assert "geheim" not in str(outcome.exception)
    assert "Background" not in str(outcome.exception)
    assert run("list", "--database-url", "sqlite:///x").exit_code == 2
