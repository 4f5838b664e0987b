"""`jigsight keys`: makes, lists and revokes API keys, directly in the database, beside a running service or before one.

A new key is printed once, alone on standard output; what was done, and in which database, goes to standard error. A
database's address may hold a password, so it comes from the environment and is no option, which every process sees.
"""

import getpass
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from service.access.keys import checked_name, checked_rate, checked_scopes, digest_of, expiry, new_secret
from service.settings import read_settings
from service.storage.audit import Change
from service.storage.database import Database, open_database, open_existing, shown
from service.storage.keys import Key, Keys, NewKey

_LONGEST_ACTOR = 128
_KEYS = typer.Typer(help="API keys: who may use the service, and for what.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Who or what will use the key, such as line-3-camera.")]
Data = Annotated[Path | None, typer.Option(help="Folder of the database.", show_default="inspections")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.add_typer(_KEYS, name="keys")


@_KEYS.command()
def create(
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(help="inspect: send pictures. read: see results. admin: all, and change what judges. Repeatable."),
    ],
    expires: Annotated[str | None, typer.Option(help="90d, 12h, 4w, or a date; never if left away.")] = None,
    rate: Annotated[float | None, typer.Option(help="Most requests a second.")] = None,
    data: Data = None,
) -> None:
    """Make an API key and print it. It is not stored and cannot be shown again."""
    secret = new_secret()
    key = NewKey(
        name=checked_name(name),
        sha256=digest_of(secret),
        scopes=checked_scopes(scope),
        rate_limit=None if rate is None else checked_rate(rate),
        expires_at=None if expires is None else expiry(expires, now=datetime.now(UTC)),
    )
    with _keys(data, open_database) as (keys, address):
        first = not keys.exist()
        keys.create(key, change=_change("create", name, detail=_rights(key)))
    typer.echo(secret)
    typer.echo(f"The key {name} is in {address}. Keep it now: it cannot be shown again.", err=True)
    if first:
        typer.echo("It is the first key: from now on every request needs one, also on this machine.", err=True)


@_KEYS.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    data: Data = None,
) -> None:
    """Show every key that there is or was, without its secret."""
    with _keys(data, open_existing) as (keys, address):
        found = keys.all()
    typer.echo(f"The keys in {address}:", err=True)
    now = datetime.now(UTC)
    if as_json:
        typer.echo(json.dumps({"keys": [_entry(key, now) for key in found]}, indent=2))
    else:
        Console().print(_table(found, now))


@_KEYS.command()
def revoke(name: Name, data: Data = None) -> None:
    """Refuse a key from now on. A running service hears of it within seconds; the name is not given again."""
    with _keys(data, open_existing) as (keys, address):
        done = keys.revoke(name, change=_change("revoke", name, detail={}))
    typer.echo(f"The key {name} in {address} {'is' if done else 'was already'} revoked.", err=True)


@contextmanager
def _keys(data: Path | None, opened: Callable[[str], Database]) -> Iterator[tuple[Keys, str]]:
    """The table of keys, and its address without a password. JIGSIGHT_DATABASE_URL counts before `data`."""
    url = read_settings(data=data).url
    with closing(opened(url)) as database:
        yield Keys(database), shown(url)


def _change(action: str, name: str, *, detail: dict[str, Any]) -> Change:
    actor = f"command line, {_user()}"[:_LONGEST_ACTOR]
    return Change(actor=actor, action=f"{action} key", subject=f"key {name}", detail=detail)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user often has a number and no name
        return f"user {os.getuid()}"


def _rights(key: NewKey) -> dict[str, Any]:
    return {
        "scopes": sorted(key.scopes),
        "rate_limit": key.rate_limit,
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def _entry(key: Key, now: datetime) -> dict[str, Any]:
    return {
        "name": key.name,
        "state": _state(key, now),
        **_rights(key),
        "created_at": key.created_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _state(key: Key, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "valid"


def _table(keys: list[Key], now: datetime) -> Table:
    table = Table(title="API keys" if keys else "no API keys: the service is open to this machine, and to no other")
    for heading in ("name", "state", "scopes", "requests/s", "created", "expires", "revoked"):
        table.add_column(heading, overflow="fold")
    for key in keys:
        rate = "" if key.rate_limit is None else f"{key.rate_limit:g}"
        moments = (_day(each) for each in (key.created_at, key.expires_at, key.revoked_at))
        table.add_row(key.name, _state(key, now), " ".join(sorted(key.scopes)), rate, *moments)
    return table


def _day(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M}"
