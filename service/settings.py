"""The service's settings: environment variables `JIGSIGHT_*`, frozen, read once at the entry point.

A container's secrets stand in for variables: `/run/secrets/jigsight_database_url` is JIGSIGHT_DATABASE_URL where the
environment has none, so that no password need be in the environment.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from models.device import Device
from models.images import MAX_PIXELS
from models.precision import Precision
from service.errors import StartupError

KeepImages = Literal["all", "rejects", "none"]
LogFormat = Literal["auto", "text", "json"]
# A page of any site is not on offer: "*" is no origin.
Origin = Annotated[str, StringConstraints(pattern=r"^https?://[a-z0-9.\-\[\]:]+$")]
Host = Annotated[str, StringConstraints(to_lower=True)]  # as the names in URLs are read
MIB = 2**20
SECRETS = Path("/run/secrets")


def _listed(given: Any) -> Any:
    """What a variable says of a list: JSON."""
    if not isinstance(given, str):
        return given
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        example = "'[\"https://mes.plant.example\"]', or without https:// where hosts are named"
        raise PydanticCustomError(
            "json_list",
            "{given} is no list in JSON; write it like {example}",
            {"given": repr(given[:100]), "example": example},
        )
    return found


# pydantic-settings would read JSON by itself, and end in a traceback where it is none.
_JSON = (NoDecode, BeforeValidator(_listed))


class Settings(BaseSettings):
    """Where things lie, and how much the service takes on. Command-line options override the environment."""

    model_config = SettingsConfigDict(env_prefix="JIGSIGHT_", frozen=True, extra="forbid")

    artifacts: Annotated[Path, Field(description="<category>/<version>.safetensors")] = Path("artifacts")
    data: Annotated[Path, Field(description="the database and kept pictures")] = Path("inspections")
    database_url: Annotated[str | None, Field(description="a SQLite file in `data` if unset")] = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 takes any free one")] = 8000
    device: Device = "auto"
    precision: Annotated[Precision, Field(description="auto: half precision where it is native")] = "auto"

    preload: Annotated[bool, Field(description="load the active artifacts at start, not on first use")] = False
    memory_budget: Annotated[int | None, Field(ge=1, description="most bytes of loaded artifacts")] = None
    scan_seconds: Annotated[float, Field(gt=0, description="how often the artifact folder is looked through")] = 5.0

    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * MIB
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    upload_limit: Annotated[int, Field(ge=1, description="most uploads being read at once")] = 64
    upload_seconds: Annotated[float, Field(gt=0, description="most time that one upload may take")] = 30.0
    head_seconds: Annotated[float, Field(gt=0, description="most time that a request's headers may take")] = 20.0

    batch_limit: Annotated[int, Field(ge=1, le=1024, description="most pictures in one forward pass")] = 16
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000, description="how long a batch waits for company")] = 0.0
    queue_limit: Annotated[int, Field(ge=1, description="most parts of one category in hand at once")] = 64
    deadline_seconds: Annotated[float, Field(gt=0, description="most time that a part may wait to be judged")] = 10.0
    decode_threads: Annotated[int, Field(ge=1, le=256)] = 4
    stop_delay_seconds: Annotated[float, Field(ge=0, description="not ready, but serving, before the end")] = 0.0
    stop_seconds: Annotated[float, Field(gt=0, description="most time for what is in hand when told to stop")] = 30.0

    keep_images: KeepImages = "all"
    keep_images_days: Annotated[float | None, Field(gt=0, description="pictures older than that are removed")] = None
    keep_images_bytes: Annotated[int | None, Field(gt=0, description="the oldest beyond that are removed")] = None
    pictures_url: Annotated[str | None, Field(description="s3://bucket/folder; a folder in `data` if unset")] = None
    pictures_seconds: Annotated[float, Field(gt=0, description="most time that an object store is waited for")] = 10.0
    retention_seconds: Annotated[float, Field(gt=0, description="how often old pictures are looked for")] = 300.0

    cors_origins: Annotated[tuple[Origin, ...], *_JSON, Field(description="web pages that may ask, as JSON; none")] = ()
    open_hosts: Annotated[
        tuple[Host, ...],
        *_JSON,
        Field(description="names that a service without keys answers to, besides localhost, as JSON"),
    ] = ()
    keys_seconds: Annotated[float, Field(gt=0, description="how often the API keys are read anew")] = 2.0
    log_format: Annotated[LogFormat, Field(description="auto: text on a terminal, JSON elsewhere")] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic's signature
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Options override the environment, and that overrides the container's secrets, where it has any."""
        given = init_settings, env_settings
        return (*given, SecretsSettingsSource(settings_cls, secrets_dir=SECRETS)) if SECRETS.is_dir() else given

    @property
    def url(self) -> str:
        """The database's SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{(self.data / 'jigsight.sqlite').absolute()}"

    @property
    def pictures(self) -> Path:
        """The folder of kept pictures."""
        return self.data / "pictures"


def read_settings(**options: Any) -> Settings:
    """The environment's settings, overridden by those options that are not None. Raises StartupError."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        flaws = (f"{'.'.join(map(str, flaw['loc']))}: {flaw['msg']}" for flaw in error.errors())
        raise StartupError(f"These settings cannot be used: {'; '.join(flaws)}.") from error
