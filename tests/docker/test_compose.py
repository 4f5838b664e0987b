"""docker-compose.yml: valid by the Compose specification, closed by default, and all that it names is there."""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.settings import Settings

ROOT = Path(__file__).parents[2]
OURS = ("jigsight", "jigsight-gpu")


def test_it_is_valid_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, ROOT / "docker-compose.yml"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(
    shutil.which("docker") is None or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode,
    reason="there is no docker compose",
)
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_reads_it(profile: str) -> None:
    command = ["docker", "compose", "--env-file", "docker/example.env", "--profile", profile, "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "pid", "ipc", "network_mode", "devices"} & set(service), name
        assert service["restart"] == "unless-stopped", name
        assert "mem_limit" in service, name
        assert name in OURS or re.fullmatch(r"[1-9]\d*:\d+", service["user"]), name
        assert all(port.startswith("${") and ":-127.0.0.1:" in port for port in service.get("ports", [])), name


def test_images_of_others_are_pinned_and_checked_for_health(compose: dict[str, Any]) -> None:
    for name in set(compose["services"]) - set(OURS):
        service = compose["services"][name]
        assert re.fullmatch(r"[a-z/]+:[a-z0-9.-]*\d+\.\d+[a-z0-9.-]*@sha256:[0-9a-f]{64}", service["image"]), name
        assert service["healthcheck"]["test"][0] == "CMD", name


def test_what_is_mounted_is_there(compose: dict[str, Any]) -> None:
    mounted = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    for volume in mounted:
        source, _, mode = volume.rpartition(":") if volume.endswith(":ro") else (volume, "", "rw")
        source = source.split(":/")[0]
        if source.startswith("./"):
            assert (ROOT / source).exists(), source
            assert mode == "ro"
        elif source.startswith("${"):
            assert mode == "ro"
        else:
            assert source in compose["volumes"]


def test_the_service_is_given_more_time_than_it_takes_to_stop(compose: dict[str, Any]) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert int(service["stop_grace_period"].removesuffix("s")) > int(
            service["environment"]["JIGSIGHT_STOP_SECONDS"]
        )
        assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_the_profiles_differ_by_the_device(compose: dict[str, Any]) -> None:
    cpu, gpu = (compose["services"][name] for name in OURS)
    assert (cpu["profiles"], gpu["profiles"]) == (["cpu"], ["gpu"])
    assert (cpu["environment"]["JIGSIGHT_DEVICE"], gpu["environment"]["JIGSIGHT_DEVICE"]) == ("cpu", "cuda")
    assert cpu["volumes"] == gpu["volumes"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_the_example_sets_what_the_file_reads(compose: dict[str, Any]) -> None:
    read = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    read |= {name for name, value in compose["services"]["jigsight"]["environment"].items() if value is None}
    example = (ROOT / "docker" / "example.env").read_text()
    assert read | {"COMPOSE_PROFILES"} == set(re.findall(r"^#?([A-Z_0-9]+)=", example, re.M))


def test_the_environment_is_what_the_service_reads(compose: dict[str, Any]) -> None:
    given = {name for service in OURS for name in compose["services"][service]["environment"]}
    given |= set(re.findall(r"^\s+(JIGSIGHT_[A-Z_]+)=", (ROOT / "docker" / "service.Dockerfile").read_text(), re.M))
    known = {f"JIGSIGHT_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in given if name.startswith("JIGSIGHT_")} <= known


def test_secrets_are_made_once_and_closed_to_others(compose: dict[str, Any], tmp_path: Path) -> None:
    script = Path(shutil.copy(ROOT / "docker" / "secrets.sh", tmp_path))
    subprocess.run([script], check=True, capture_output=True, timeout=60)
    folder = tmp_path / "secrets"
    assert {f"docker/secrets/{path.name}" for path in folder.iterdir()} == {
        secret["file"] for secret in compose["secrets"].values()
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    password = (folder / "postgres_password").read_text()
    assert re.fullmatch(r"[0-9a-f]{48}", password)
    assert f":{password}@postgres:5432/" in (folder / "jigsight_database_url").read_text()
    assert (folder / "grafana_password").read_text() != password
    again = subprocess.run([script], capture_output=True, text=True, timeout=60)
    assert again.returncode == 1
    assert (folder / "postgres_password").read_text() == password


def test_secrets_are_in_no_commit() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/docker/secrets/", "/.env"} <= set(ignored)
