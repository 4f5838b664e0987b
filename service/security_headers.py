"""Headers that keep browsers from doing more with a response than it is for. Pure ASGI, around everything.

Nothing may be framed, sniffed, or kept in a cache: verdicts and pictures of parts are their owner's business. Only the
documentation is a page, and may run the scripts that this service sends.
"""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
# Swagger UI starts itself by a script in the page, whose text depends on the path that the service is mounted at.
_PAGE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_YEAR = "max-age=31536000"


class SecurityHeaders:
    """Adds them to every response that does not bring its own. `docs` is the path of the documentation's page.

    `static` is the path under which files lie that anybody may keep.
    """

    def __init__(self, app: ASGIApp, *, docs: str, static: str) -> None:
        self.app = app
        self._docs = docs
        self._static = static

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; add to the headers of what comes back."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = self._headers(scope)

        async def stamp(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in added.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, stamp)

    def _headers(self, scope: Scope) -> Mapping[str, str]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        page = path == self._docs or path.startswith(f"{self._docs}/")
        headers = _ALWAYS | {"Content-Security-Policy": _PAGE if page else _NOTHING}
        if not path.startswith(f"{self._static}/"):
            headers["Cache-Control"] = "no-store"
        if scope["scheme"] == "https":  # told by the proxy; where there is none, there is no certificate to insist on
            headers["Strict-Transport-Security"] = _YEAR
        return headers
