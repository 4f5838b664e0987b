"""Where numba keeps compiled code: a folder for these loops on this processor, and digests of what was written there.

numba itself would go on with old code where a function has changed that another one calls, executes what a power cut
has left of a file, and mixes up what two processes write at once.
"""

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import llvmlite
import numba
from filelock import FileLock
from llvmlite import binding

logger = logging.getLogger(__name__)
_DIGESTS = "digests.json"
_PATIENCE = 60.0  # seconds, for a process that compiles: several times as long as that takes


@contextmanager
def opened() -> Iterator[Path | None]:
    """The folder, with nothing in it that is not as it was written, for one process at a time; None: there is none.

    It lies in NUMBA_CACHE_DIR, or in the user's cache folder. Unless an error ends it, what it then holds counts.
    """
    with ExitStack() as held:
        folder: Path | None = None
        try:
            folder = _made(_base())
            held.enter_context(FileLock(folder / "lock", timeout=_PATIENCE))
            _discard(folder, but=_digests_written(folder))
        except (OSError, RuntimeError) as error:  # RuntimeError: no home, or no locks on that file system
            logger.warning(
                "compiled loops cannot be kept (%s): each process compiles them. NUMBA_CACHE_DIR names another place.",
                error,
            )
            folder = None
        yield folder
        if folder is not None:
            _seal(folder)


def is_empty(folder: Path) -> bool:
    """Whether nothing is kept there."""
    return not _files(folder)


def empty(folder: Path) -> None:
    """Delete what is kept there."""
    _discard(folder, but={})


def _base() -> Path:
    given = os.environ.get("NUMBA_CACHE_DIR")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jigsight"


def _made(base: Path) -> Path:
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = base / _name()
    folder.mkdir(mode=0o700, exist_ok=True)
    # What lies there is executed, and deleted.
    if base.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise PermissionError(f"others may write to {base}")
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{folder} is a link")
    if hasattr(os, "geteuid") and (found.st_uid != _user() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise PermissionError(f"others may write to {folder}")
    return folder


@cache
def _name() -> str:
    """A digest of what decides on the code: the sources of this package, the compiler, the processor; and the user."""
    sources = [source.read_bytes() for source in sorted(Path(__file__).parent.glob("*.py"))]
    compiler = [numba.__version__, llvmlite.__version__]
    processor = [binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()]
    words = [word.encode() for word in (*compiler, *processor, str(_user()))]
    return hashlib.sha256(b"\0".join([*sources, *words])).hexdigest()[:16]


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def _discard(folder: Path, *, but: dict[str, str]) -> None:
    others = [file for file in _files(folder) if but.get(str(file.relative_to(folder))) != _digest(file)]
    for file in others:
        file.unlink()
    if others and but:
        logger.warning("%d files in %s are not as they were written: compiling them anew.", len(others), folder)


def _seal(folder: Path) -> None:
    partial = folder / f"{_DIGESTS}.partial"
    try:
        digests = {str(file.relative_to(folder)): _digest(file) for file in _files(folder)}
        if digests != _digests_written(folder):
            partial.write_text(json.dumps(digests), encoding="utf-8")
            partial.replace(folder / _DIGESTS)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        logger.warning("compiled loops cannot be kept (%s): the next process compiles them again.", error)


def _digests_written(folder: Path) -> dict[str, str]:
    try:
        found = json.loads((folder / _DIGESTS).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _files(folder: Path) -> list[Path]:
    """What numba has written, unfinished files too."""
    return [file for file in folder.rglob("*.nb[ci]*") if file.is_file()]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
