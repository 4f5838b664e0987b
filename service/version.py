"""Which JigSight this is, by the metadata of its package."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """As in `0.1.0`."""
    try:
        return version("jigsight")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0+unknown"
