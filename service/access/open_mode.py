"""A service that has no key yet: it may be reached from this machine only, and not by pages of other sites.

A browser on this machine runs whatever page it is shown. A page that has its own name resolve to this machine (DNS
rebinding) is told by the Host header, one that just sends forms here by the Origin header. A proxy on this machine,
which lets others in, is told by what proxies say of whom they ask for.
"""

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from service.errors import ForeignRequest, StartupError
from service.storage.keys import Keys

_OF_PROXIES = ("forwarded", "x-forwarded-", "x-real-ip", "via")  # how their headers begin


def is_loopback(host: str) -> bool:
    """Whether this address or name is certainly this machine; of names only localhost is."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


def check_exposure(host: str, keys: Keys) -> None:
    """Raise StartupError if others could reach a service that nobody needs a key for."""
    if is_loopback(host) or keys.exist():
        return
    raise StartupError(
        f"Without an API key the service listens on this machine only, not on {host or 'all addresses'}: anybody could "
        "use it. Create a key with `jigsight keys create NAME --scope admin` (with the same --data or database), or "
        "leave --host away."
    )


def check_local(headers: Mapping[str, str], *, client: str, hosts: Collection[str], origins: Collection[str]) -> None:
    """Raise ForeignRequest unless a request came from and for this machine, and from no other site's page.

    `client` is the address that it came from. `hosts` are names, in lower case, that are this machine's too, whoever
    passes them on; `origins` are the pages that may ask, as "https://host:port".
    """
    named = headers.get("host", "")
    name = _hostname(f"//{named}")
    if name not in hosts:
        _check_direct(headers, client)
    if not (is_loopback(name) or name in hosts):
        raise ForeignRequest(
            f"This service has no API keys, so it answers to localhost only, not to {named[:100]!r}. Use "
            "http://localhost, name the host in JIGSIGHT_OPEN_HOSTS, or create a key with `jigsight keys create`."
        )
    origin = headers.get("origin")
    if origin is not None and origin not in origins and _authority(origin) != named.lower():
        raise ForeignRequest(
            f"This service has no API keys, so pages of other sites may not use it, and {origin[:100]!r} is one. Name "
            "it in JIGSIGHT_CORS_ORIGINS, or create a key with `jigsight keys create`."
        )


def _check_direct(headers: Mapping[str, str], client: str) -> None:
    """Raise ForeignRequest if somebody else asks, or has this machine's proxy ask."""
    passed_on = next((name for name in headers if name.lower().startswith(_OF_PROXIES)), None)
    if passed_on is not None:
        raise ForeignRequest(
            "This service has no API keys, so it answers to this machine only, and a proxy has passed this request on "
            f"(it has the header {passed_on[:40]}). Create a key with `jigsight keys create`; or, where the proxy lets "
            "in only who may do everything, name its Host in JIGSIGHT_OPEN_HOSTS."
        )
    if not is_loopback(client):
        raise ForeignRequest(
            f"This service has no API keys, so it answers to this machine only, not to {client[:50]!r}. Create a key "
            "with `jigsight keys create`."
        )


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # brackets that do not match
        return ""


def _authority(url: str) -> str:
    """Host and port as the URL tells them."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
