"""Prometheus: what has happened is counted under names that the dashboard and the alerts use."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings

POST = "/v1/categories/plate/inspections"
Picture = Callable[[int], bytes]
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: TestClient) -> Samples:
    """Every sample, by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_verdicts_stages_and_batches(client: TestClient, good: Picture, bad: Picture) -> None:
    answers = [client.post(POST, content=each).json() for each in (good(1), good(2), bad(1))]
    version = answers[0]["version"]
    found = read(client)
    for verdict, count in (("pass", 2), ("fail", 1)):
        assert of(found, "jigsight_verdicts_total", category="plate", version=version, verdict=verdict) == count
    for stage in ("queue", "decode", "inference", "store", "total"):
        assert of(found, "jigsight_stage_seconds_count", stage=stage) == 3
    seconds = {stage: of(found, "jigsight_stage_seconds_sum", stage=stage) for stage in ("decode", "total")}
    assert seconds["total"] > seconds["decode"]
    assert of(found, "jigsight_batch_size_sum") == 3
    assert of(found, "jigsight_score_ratio_count", category="plate") == 3
    assert of(found, "jigsight_score_ratio_bucket", category="plate", le="1.0") == 2
    assert of(found, "jigsight_queue_depth", category="plate") == 0


def test_requests_are_counted_by_their_route(client: TestClient, good: Picture) -> None:
    for part in range(2):
        client.post(POST, content=good(part))
    client.get("/v1/inspections/nonsense")
    client.get("/nowhere/at/all")
    found = read(client)
    route = "/v1/categories/{category}/inspections"
    assert of(found, "jigsight_requests_total", method="POST", route=route, status="201") == 2
    assert of(found, "jigsight_requests_total", method="GET", route="/v1/inspections/{id}", status="422") == 1
    assert of(found, "jigsight_requests_total", method="GET", route="unmatched", status="404") == 1


def test_refusals_are_counted_by_their_reason(client: TestClient) -> None:
    client.post(POST, content=b"no picture")
    client.post("/v1/categories/unheard-of/inspections", content=b"x")
    found = read(client)
    assert of(found, "jigsight_refused_total", reason="unsupported-image") == 1
    assert of(found, "jigsight_refused_total", reason="unknown-category") == 1


def test_what_is_the_case(client: TestClient, good: Picture) -> None:
    assert of(read(client), "jigsight_ready") == 1
    version = client.post(POST, content=good(1)).json()["version"]
    found = read(client)
    labels = {"category": "plate", "version": version, "arch": "resnet18", "active": "true"}
    assert of(found, "jigsight_artifact_info", **labels) == 1
    assert of(found, "jigsight_loaded_artifacts") == 1
    assert of(found, "jigsight_loaded_bytes") > 1_000_000
    assert of(found, "process_resident_memory_bytes") > 1_000_000


def test_two_services_in_one_process_count_apart(client: TestClient, settings: Settings, good: Picture) -> None:
    client.post(POST, content=good(1))
    with TestClient(create_app(settings.model_copy(update={"data": settings.data / "other"}))) as other:
        assert of(read(other), "jigsight_batch_size_count") == 0


@pytest.mark.parametrize("category", ["plate", "unheard-of"])
def test_labels_do_not_grow_with_what_clients_send(client: TestClient, good: Picture, category: str) -> None:
    client.post(f"/v1/categories/{category}/inspections", content=good(1))
    assert {dict(labels)["category"] for name, labels in read(client) if name == "jigsight_queue_depth"} <= {"plate"}


def test_the_document_tells_every_metric(client: TestClient, good: Picture) -> None:
    client.post(POST, content=good(1))
    document = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    told = set(re.findall(r"`(jigsight_[a-z_]+)`", document))
    families = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(client.get("/metrics").text)
        if family.name.startswith("jigsight_") and not family.name.endswith("_created")
    }
    assert told == families


def test_metrics_have_no_parameters(client: TestClient) -> None:
    assert client.get("/metrics?name=x").status_code == 422
