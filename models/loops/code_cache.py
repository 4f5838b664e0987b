"""Where numba keeps compiled code: a folder for this version of these loops, with digests of what was written there.

numba itself would go on with old code where a function has changed that another one calls, and it executes what a power
cut has left of a file.
"""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
from functools import cache
from pathlib import Path

import numba

logger = logging.getLogger(__name__)
_DIGESTS = "digests.json"


@cache
def folder() -> Path | None:
    """The folder, with nothing in it that is not as it was written; None where there can be none.

    It lies in NUMBA_CACHE_DIR, or in the user's cache folder.
    """
    try:
        found = _base() / _version()
        found.mkdir(mode=0o700, parents=True, exist_ok=True)
        _discard_damaged(found)
        with tempfile.TemporaryFile(dir=found):  # whether it may be written to
            return found
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        logger.warning("compiled loops cannot be kept (%s): each process compiles them for some ten seconds.", error)
        return None


def is_empty() -> bool:
    """Whether nothing has been compiled on this machine, or nothing can be kept."""
    kept = folder()
    return kept is None or not _files(kept)


def seal() -> None:
    """Write down the digests of what the folder holds now; without them a next process compiles it anew."""
    kept = folder()
    if kept is None:
        return
    with contextlib.suppress(OSError):
        digests = {str(file.relative_to(kept)): _digest(file) for file in _files(kept)}
        if digests == _sealed(kept):
            return
        with tempfile.NamedTemporaryFile("w", dir=kept, delete=False) as partial:
            json.dump(digests, partial)
        Path(partial.name).replace(kept / _DIGESTS)


def _base() -> Path:
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jigsight"


@cache
def _version() -> str:
    """A name for the sources of this package."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def _discard_damaged(kept: Path) -> None:
    sealed = _sealed(kept)
    for file in _files(kept):
        if sealed.get(str(file.relative_to(kept))) != _digest(file):
            logger.info("compiled loops in %s are not as they were written: compiling anew", file)
            file.unlink(missing_ok=True)


def _files(kept: Path) -> list[Path]:
    return [file for file in kept.rglob("*") if file.is_file() and file.name != _DIGESTS]


def _sealed(kept: Path) -> dict[str, str]:
    try:
        found = json.loads((kept / _DIGESTS).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
