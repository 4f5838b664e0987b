"""Settings come from the environment, are checked and do not change."""

from pathlib import Path

import pytest
from pydantic import ValidationError

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
