"""Where load goes: one category of one server, with a key if need be; and whether it can go there."""

from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
from yarl import URL

from service.load.answers import Accepted, Refusal, read_answer, read_failure
from service.load.errors import LoadError

_SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Target:
    """`address` is the server's, as it says when it starts. Raises LoadError if it is none."""

    address: str
    category: str
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            sound = URL(self.address).scheme in ("http", "https") and bool(URL(self.address).host)
        except ValueError:
            sound = False
        if not sound:
            raise LoadError(
                f"{self.address!r} is no server's address. It begins with http://, as http://127.0.0.1:8000."
            )

    @property
    def url(self) -> URL:
        """Where pictures are posted."""
        return URL(self.address) / "v1" / "categories" / self.category / "inspections"

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        kind = {"Content-Type": "application/octet-stream"}  # the server looks at the bytes
        return kind | ({"Authorization": f"Bearer {self.key}"} if self.key else {})


async def check(session: aiohttp.ClientSession, target: Target) -> None:
    """Raise LoadError unless the server would look at a picture for this category from this sender.

    It is sent a request without a picture, which a server refuses as empty, or as too much at present, once it knows
    the category and has accepted the key. No inspection comes of it.
    """
    limit = aiohttp.ClientTimeout(total=_SECONDS_TO_ANSWER)
    try:
        async with session.post(target.url, data=b"", timeout=limit, allow_redirects=False) as response:
            answer = read_answer(response.status, response.headers, await response.read())
    except (aiohttp.ClientError, TimeoutError) as error:
        failure = read_failure(error, timeout=_SECONDS_TO_ANSWER)
        raise LoadError(
            f"No JigSight answers at {target.address} ({failure.kind}). Start one with `jigsight serve`, or give the "
            "address that it says when it starts."
        ) from None
    _refuse(answer, target)


def _refuse(answer: Accepted | Refusal, target: Target) -> None:
    if isinstance(answer, Accepted) or answer.status is None or answer.status < 400:
        raise LoadError(f"{target.address} answers a request without a picture as if it had one: it is no JigSight.")
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise LoadError(
            f"{target.address} does not take pictures from this sender: {answer.detail} Give a key with the scope "
            "`inspect` in the environment, as JIGSIGHT_KEY."
        )
    if answer.status == HTTPStatus.NOT_FOUND:
        raise LoadError(f"{target.address} does not inspect {target.category!r}: {answer.detail}")
