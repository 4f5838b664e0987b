"""Asks JigSight what became of parts. Standard library only.

    python mes.py http://127.0.0.1:8000 part A-17                   # may this part go on?
    python mes.py http://127.0.0.1:8000 follow --state mes.json     # every inspection, as a line of JSON, for ever

`part` exits with 0 for pass, 1 for fail, 2 where JigSight has never seen it or does not answer. `follow` starts from
the first inspection, and with a state file goes on where it was; after a crash the last lines may come twice, and an
inspection's `id` tells them. A key, if the server asks for one, is taken from JIGSIGHT_KEY.
"""

import argparse
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PAGE = 100
SECONDS = 10.0


class Unusable(Exception):
    """What was given cannot be worked with, and the message says why."""


def get(address: str, path: str, **query: object) -> dict:
    """What is there. Raises OSError, HTTPException or ValueError if there is no answer, or one that is an error."""
    text = urllib.parse.urlencode({name: value for name, value in query.items() if value is not None})
    key = os.environ.get("JIGSIGHT_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{address.rstrip('/')}{path}?{text}", headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as response:
        return json.load(response)


def part(address: str, serial: str) -> int:
    """Print a part's disposition and what it rests on; the exit code says it too."""
    try:
        path = f"/v1/parts/{urllib.parse.quote(serial, safe='')}"
    except UnicodeEncodeError as error:  # Python has read bytes that are not UTF-8
        raise Unusable(f"The serial {serial!a} is not UTF-8.") from error
    found = get(address, path)
    print(f"{found['serial']}: {found['disposition']}")
    for each in found["latest"]:
        station = each["station"] or "no station"
        print(f"  {each['category']}, {station}: {each['verdict']} at {each['created_at']} ({each['id']})")
    return {"pass": 0, "fail": 1}.get(found["disposition"], 2)


def cursor_in(file: Path) -> str:
    """Where a state file says to go on. Raises Unusable: beginning anew would book everything twice."""
    try:
        cursor = json.loads(file.read_text(encoding="utf-8"))["cursor"]
    except (ValueError, KeyError, TypeError):
        cursor = None
    if not isinstance(cursor, str):
        raise Unusable(f"{file} holds no cursor. Restore it, or delete it to start from the first inspection.")
    return cursor


def follow(address: str, cursor: str | None, *, poll: float) -> Iterator[tuple[list[dict], str]]:
    """New inspections, oldest first, in lists; each with the cursor to go on from once the list is dealt with."""
    while True:
        try:
            page = get(address, "/v1/inspections", order="asc", limit=PAGE, cursor=cursor)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429:
                raise  # asking again would not help
            print(f"no answer, trying again: {error}", file=sys.stderr)
            time.sleep(poll)
            continue
        cursor = page["next"]  # behind this page, also where nothing is there yet
        if page["items"]:
            yield page["items"], cursor
        if len(page["items"]) < PAGE:
            time.sleep(poll)


def follow_to_stdout(address: str, file: Path | None, *, poll: float) -> None:
    """Print inspections until interrupted."""
    cursor = cursor_in(file) if file and file.exists() else None
    for new, after in follow(address, cursor, poll=poll):
        for each in new:
            print(json.dumps(each), flush=True)
        if file:
            store(file, {"cursor": after})


def store(file: Path, state: dict) -> None:
    """Write the state such that a crash leaves the old or the new one."""
    beside = file.with_name(file.name + ".new")
    beside.write_text(json.dumps(state))
    beside.replace(file)


def main() -> int:
    """One of the two commands."""
    arguments = argparse.ArgumentParser(description="Ask JigSight what became of parts.")
    arguments.add_argument("address")
    commands = arguments.add_subparsers(dest="command", required=True)
    commands.add_parser("part").add_argument("serial")
    following = commands.add_parser("follow")
    following.add_argument("--state", type=Path)
    following.add_argument("--poll", type=float, default=1.0, help="seconds between looks")
    given = arguments.parse_args()
    try:
        if not given.address.startswith(("http://", "https://")):
            raise Unusable(f"{given.address!a} is no address: it begins with http:// or https://")
        if given.command == "part":
            return part(given.address, given.serial)
        follow_to_stdout(given.address, given.state, poll=given.poll)
    except Unusable as error:
        print(error, file=sys.stderr)
    except urllib.error.HTTPError as error:
        print(f"{error.code}: {error.read().decode(errors='replace')}", file=sys.stderr)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"no answer from {given.address}: {error}", file=sys.stderr)
    except (KeyError, TypeError) as error:
        print(f"{given.address} does not answer as JigSight: {type(error).__name__}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return 2


if __name__ == "__main__":
    sys.exit(main())
