"""docs/clients.md and the examples name one another."""

import re
from pathlib import Path


def test_every_example_is_in_the_document_and_every_one_there_exists(examples: Path) -> None:
    document = (examples.parent / "docs" / "clients.md").read_text(encoding="utf-8")
    there = {file.name for file in examples.iterdir() if file.is_file()}
    assert set(re.findall(r"(?<!\./)examples/([\w.]+\w)", document)) == there
