"""What keeps load from being generated at all. What a server answers to it is a result, never an error here."""

from models.errors import JigSightError


class LoadError(JigSightError):
    """There is no server, or it will not take these pictures, or there are no pictures to send."""
