"""Which artifact is meant when a category's folder is given instead of a file.

Only names and times are looked at: whether the file can be used is for `models.artifact.load` to say.
"""

from pathlib import Path

from models.artifact import SUFFIX
from models.errors import ArtifactError


def age(path: Path) -> tuple[int, str]:
    """Orders artifact files by their last change, equal times by their version: the greatest is the newest."""
    try:
        return path.stat().st_mtime_ns, path.name
    except OSError:  # a dangling link: loading it will say so
        return 0, path.name


def find_artifact(path: Path) -> Path:
    """`path` itself, or if it is a folder, the artifact directly in it that was changed last.

    Raises ArtifactError for a folder without an artifact.
    """
    if not path.is_dir():
        return path
    found = [each for each in path.glob(f"*{SUFFIX}") if not each.name.startswith(".")]
    if not found:
        categories = sorted({each.parent.name for each in path.glob(f"*/*{SUFFIX}")})
        hint = f"Give one of its categories: {', '.join(categories)}" if categories else "`jigsight train` makes one"
        raise ArtifactError(f"The folder {path} holds no artifact (*{SUFFIX}). {hint}.")
    return max(found, key=age)
