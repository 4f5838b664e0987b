"""Settings come from the environment, are checked and do not change."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import StartupError
from service.settings import Settings, read_settings


def test_defaults_bind_to_this_machine_only() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.keep_images) == ("127.0.0.1", 8000, "all")
    assert settings.url.startswith("sqlite:////")
    assert settings.url.endswith("/inspections/jigsight.sqlite")


def test_the_environment_is_read_and_arguments_override_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSIGHT_PORT", "1234")
    monkeypatch.setenv("JIGSIGHT_DATA", "/srv/data")
    monkeypatch.setenv("JIGSIGHT_DATABASE_URL", "sqlite:////srv/x.sqlite")
    settings = Settings(port=4321)
    assert (settings.port, settings.data, settings.url) == (4321, Path("/srv/data"), "sqlite:////srv/x.sqlite")


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSIGHT_CORS_ORIGINS", '["https://mes.factory:8443", "http://[::1]:3000"]')
    monkeypatch.setenv("JIGSIGHT_OPEN_HOSTS", '["Inspection.Factory"]')
    settings = Settings()
    assert settings.cors_origins == ("https://mes.factory:8443", "http://[::1]:3000")
    assert settings.open_hosts == ("inspection.factory",)


@pytest.mark.parametrize("name", ["cors_origins", "open_hosts"])
@pytest.mark.parametrize("value", ["*", "foo", "{}", "3", '"foo"', "[" * 100_000])
def test_a_list_that_is_none_is_told_how_to_write_one(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"JIGSIGHT_{name.upper()}", value)
    with pytest.raises(StartupError, match=rf"""{name}: '.*no list in JSON.*\["https://mes.plant.example"\]"""):
        read_settings()


def test_what_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIGSIGHT_PORT", "http")
    with pytest.raises(StartupError, match="port: "):
        read_settings(host=None, data=Path("x"))
    assert read_settings(host=None, port=1, data=Path("x")).host == "127.0.0.1"


@pytest.mark.parametrize(("name", "value"), [("PORT", "70000"), ("DEVICE", "tpu"), ("KEEP_IMAGES", "some")])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"JIGSIGHT_{name}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_a_password_may_be_in_a_secret_of_the_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "jigsight_database_url").write_text("postgresql+psycopg://jigsight:secret@db/jigsight\n")
    (tmp_path / "postgres_password").write_text("not ours")
    monkeypatch.setattr("service.settings.SECRETS", tmp_path)
    monkeypatch.delenv("JIGSIGHT_DATABASE_URL", raising=False)
    assert Settings().url == "postgresql+psycopg://jigsight:secret@db/jigsight"
    monkeypatch.setenv("JIGSIGHT_DATABASE_URL", "sqlite:///other")
    assert Settings().url == "sqlite:///other"


def test_the_document_tells_every_setting_and_its_default() -> None:
    document = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
    rows = [re.split(r"\s*\|\s*", line)[1:] for line in document.splitlines() if line.startswith("| `")]
    told: dict[str, str] = {}
    for names, defaults, *_ in rows:
        keys, values = re.findall(r"`([^`]+)`", names), re.findall(r"`([^`]+)`", defaults)
        told |= dict(zip(keys, values or [""] * len(keys), strict=True))
    assert told.keys() == Settings.model_fields.keys()
    for name, field in Settings.model_fields.items():
        if field.default is None:
            assert told[name] == ""
        elif isinstance(field.default, tuple):
            assert json.loads(told[name]) == list(field.default)
        elif isinstance(field.default, int | float):
            assert json.loads(told[name]) == field.default
        else:
            assert told[name] == str(field.default)
