"""Dashboard, alerts and Prometheus: every expression is PromQL, over metrics that the service has."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

ROOT = Path(__file__).parents[2]
HISTOGRAMS = {"jigsight_stage_seconds", "jigsight_batch_size", "jigsight_score_ratio"}
METRICS = {
    "jigsight_requests_total",
    "jigsight_verdicts_total",
    "jigsight_queue_depth",
    "jigsight_refused_total",
    "jigsight_device_memory_bytes",
    "jigsight_artifact_info",
    "jigsight_loaded_artifacts",
    "jigsight_loaded_bytes",
    "jigsight_ready",
    "jigsight_pictures_bytes",
    "jigsight_retention_removed_total",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
    "python_gc_objects_collected_total",
    *(f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")),
}
STAGES = {"queue", "decode", "inference", "store", "total"}


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((ROOT / "docker" / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "docker" / "grafana" / "jigsight.json").read_text())
    return loaded


def expressions() -> list[str]:
    drawn = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    return [each.replace("$__rate_interval", "1m") for each in drawn] + [rule["expr"] for rule in rules()]


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "args", "vector_selector", "param"):
        child = getattr(node, name, None)
        for each in child if isinstance(child, list) else [child]:
            if each is not None:
                yield from selectors(each)


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_asks_for_what_there_is(expression: str) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    found = list(selectors(promql_parser.parse(expression)))
    assert found or "vector(" in expression
    assert {each.name for each in found} <= METRICS | recorded | {"up"}
    assert set(re.findall(r'stage="([a-z]+)"', expression)) <= STAGES


def test_the_list_is_what_the_service_measures() -> None:
    """A test of the service compares its document with what it really tells."""
    document = (ROOT / "docs" / "metrics.md").read_text()
    measured = set(re.findall(r"`(jigsight_[a-z_]+)`", document))
    assert {name for name in METRICS if name.startswith("jigsight_")} == {
        part
        for name in measured
        for part in ([f"{name}_{each}" for each in ("bucket", "sum", "count")] if name in HISTOGRAMS else [name])
    }


def test_everything_that_the_service_measures_is_drawn() -> None:
    drawn = {each.name for expression in expressions() for each in selectors(promql_parser.parse(expression))}
    assert METRICS - drawn <= {f"{name}_{part}" for name in HISTOGRAMS for part in ("sum", "count")}


def test_panels_have_a_place_and_a_number_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert apart or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_panels_ask_the_data_source_that_is_provisioned(compose: dict[str, Any]) -> None:
    folder = ROOT / "docker" / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in dashboard()["panels"] if panel["type"] != "row"} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    path = yaml.safe_load((folder / "dashboards" / "jigsight.yml").read_text())["providers"][0]["options"]["path"]
    assert any(f":{path}/jigsight.json:" in volume for volume in compose["services"]["grafana"]["volumes"])


def test_prometheus_scrapes_whichever_profile_runs(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "docker" / "prometheus.yml").read_text())
    job = config["scrape_configs"][0]
    host, port = job["static_configs"][0]["targets"][0].split(":")
    for name in ("jigsight", "jigsight-gpu"):
        assert host in compose["services"][name]["networks"]["monitoring"]["aliases"]
        assert compose["services"][name]["ports"][0].endswith(f":{port}")
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{compose['services']['prometheus']['secrets'][0]}"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on the path")
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "--syntax-only", "docker/prometheus.yml"],
        ["check", "rules", "docker/alerts.yml"],
        ["test", "rules", "tests/docker/alerts.test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
