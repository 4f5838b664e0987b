"""The service's settings: environment variables `JIGSIGHT_*`, frozen, read once at the entry point.

A container's secrets stand in for variables: `/run/secrets/jigsight_database_url` is JIGSIGHT_DATABASE_URL where the
environment has none, so that no password need be in the environment.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource, SettingsConfigDict

from models.device import Device
from models.images import MAX_PIXELS

KeepImages = Literal["all", "rejects", "none"]
MIB = 2**20
SECRETS = Path("/run/secrets")


class Settings(BaseSettings):
    """Where things lie, and how much the service takes on. Command-line options override the environment."""

    model_config = SettingsConfigDict(env_prefix="JIGSIGHT_", frozen=True, extra="forbid")

    artifacts: Annotated[Path, Field(description="<category>/<version>.safetensors")] = Path("artifacts")
    data: Annotated[Path, Field(description="the database and kept pictures")] = Path("inspections")
    database_url: Annotated[str | None, Field(description="a SQLite file in `data` if unset")] = None
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0 takes any free one")] = 8000
    device: Device = "auto"
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * MIB
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    batch_limit: Annotated[int, Field(ge=1, le=1024, description="most pictures in one forward pass")] = 16
    queue_limit: Annotated[int, Field(ge=1, description="most parts of one category in hand at once")] = 64
    upload_limit: Annotated[int, Field(ge=1, description="most uploads being read at once")] = 64
    upload_seconds: Annotated[float, Field(gt=0, description="most time that one upload may take")] = 30.0
    decode_threads: Annotated[int, Field(ge=1, le=256)] = 4
    keep_images: KeepImages = "all"

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
