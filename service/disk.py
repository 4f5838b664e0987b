"""Whether the next part would find room on the disk: a service that cannot store a verdict gives none.

Asked by the readiness probe and not by requests, so that it is seen to be over without one. Nothing is written for it.
"""

import os
import shutil

from service.settings import MIB, Settings


def ailment(settings: Settings) -> str | None:
    """What is wrong with the data folder, if anything is and something is stored there."""
    pictures = settings.keep_images != "none" and settings.pictures_url is None
    if settings.database_url is not None and not pictures:
        return None
    folder = settings.data
    while not folder.exists():  # it is made for the first picture, if the database is elsewhere
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return "the data folder cannot be written to"
    free = shutil.disk_usage(folder).free
    if free < settings.max_body_bytes:
        return (
            f"only {free / MIB:.1f} MiB are free in the data folder, and the largest upload may have "
            f"{settings.max_body_bytes / MIB:.1f}"
        )
    return None
