"""The record of a run, for people: an artifact's manifest as readable JSON, and what each stage took.

It lies beside the artifact, which cannot hold times: the same inputs give the same bytes. Nobody reads it to judge.
"""

import json
from collections.abc import Mapping

from models.artifact import Artifact
from models.durable import sync

RECORD = ".json"


def write_record(artifact: Artifact, seconds: Mapping[str, float]) -> str | None:
    """Write `CATEGORY/VERSION.json`; one of an earlier run that came to the same version is replaced.

    Where that fails, the artifact is none the worse: returns a warning, else None.
    """
    document = {
        "version": artifact.version,
        "seconds": dict(seconds),
        "manifest": artifact.manifest.model_dump(mode="json"),
    }
    path = artifact.path.with_suffix(RECORD)
    incoming = path.with_name(f".incoming-{path.name}")
    try:
        incoming.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        sync(incoming)
        incoming.replace(path)
    except OSError as error:
        incoming.unlink(missing_ok=True)
        return f"the record {path} could not be written ({error.strerror}); the artifact is whole without it"
    return None
