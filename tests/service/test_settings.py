"""Settings come from the environment, are checked and do not change."""

from pathlib import Path

import pytest
from pydantic import ValidationError

import service.settings
from service.settings import Settings


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
    monkeypatch.setattr(service.settings, "SECRETS", tmp_path)
    monkeypatch.delenv("JIGSIGHT_DATABASE_URL", raising=False)
    assert Settings().url == "postgresql+psycopg://jigsight:secret@db/jigsight"
    monkeypatch.setenv("JIGSIGHT_DATABASE_URL", "sqlite:///other")
    assert Settings().url == "sqlite:///other"
