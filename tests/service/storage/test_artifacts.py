"""What is remembered of artifacts: manifests, activations, thresholds, and the notes of who changed them."""

import pytest
from sqlalchemy import select

from models.artifact import Artifact
from service.storage.artifacts import Artifacts
from service.storage.audit import Change
from service.storage.database import Database
from service.storage.tables import AUDIT

OTHER = "0123456789ab"


@pytest.fixture
def artifacts(database: Database, artifact: Artifact) -> Artifacts:
    found = Artifacts(database)
    found.remember([(OTHER, artifact.manifest)])
    return found


def change(**detail: object) -> Change:
    return Change("ann", "activate", "category plate", detail=detail, request_id="r1")


def test_artifacts_are_remembered_once(artifacts: Artifacts, artifact: Artifact) -> None:
    artifacts.remember([(artifact.version, artifact.manifest)])
    assert artifacts.manifest("plate", artifact.version) == artifact.manifest


def test_the_last_activation_counts(artifacts: Artifacts, artifact: Artifact) -> None:
    assert artifacts.activations() == {}
    for version in (OTHER, artifact.version, OTHER):
        artifacts.activate("plate", version, change=change())
        found = artifacts.activations()["plate"]
        assert (found.version, found.activated_by) == (version, "ann")
    assert [each.version for each in artifacts.history("plate")] == [OTHER, artifact.version, OTHER]


def test_a_threshold_holds_for_its_version(artifacts: Artifacts, artifact: Artifact) -> None:
    assert artifacts.thresholds() == {}
    artifacts.set_threshold("plate", OTHER, value=3.0, false_reject_rate=0.01, change=change())
    artifacts.set_threshold("plate", OTHER, value=None, false_reject_rate=None, change=change())
    artifacts.set_threshold("plate", artifact.version, value=4.0, false_reject_rate=None, change=change())
    found = {key: (each.value, each.set_by) for key, each in artifacts.thresholds().items()}
    assert found == {("plate", OTHER): (None, "ann"), ("plate", artifact.version): (4.0, "ann")}


def test_every_change_is_noted_with_it(artifacts: Artifacts, database: Database) -> None:
    artifacts.activate("plate", OTHER, change=change(version=OTHER))
    with database.reading() as connection:
        row = connection.execute(select(AUDIT)).one()
    assert (row.actor, row.action, row.subject, row.detail) == ("ann", "activate", "category plate", {"version": OTHER})
