"""Sends one picture of one part to JigSight and says pass or fail. Standard library only.

    python camera.py http://127.0.0.1:8000 bracket part.png --serial A-17 --station press-3

Exit code 0: pass. 1: fail. 2: not judged, which is never a pass: set the part aside. A key, if the server asks for
one, is taken from JIGSIGHT_KEY.
"""

import argparse
import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

TRY_AGAIN = {408, 409, 429, 502, 503, 504}  # 409: an earlier try of ours is still being judged
ATTEMPT_SECONDS = 10.0  # what one attempt may take


class NotJudged(Exception):
    """There is no verdict, and the message says why."""


def inspect(address: str, category: str, picture: bytes, *, labels: dict[str, str], patience: float) -> dict:
    """The inspection, as JigSight answers it; keeps trying for `patience` seconds. Raises NotJudged."""
    url = url_of(address, category, labels)
    headers = {
        "Content-Type": "application/octet-stream",
        # One key for all attempts: had an earlier one been judged, its answer comes again, and no second inspection.
        "Idempotency-Key": str(uuid.uuid4()),
    }
    if key := os.environ.get("JIGSIGHT_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    deadline = time.monotonic() + patience
    pause = 0.1
    while True:
        request = urllib.request.Request(url, data=picture, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=ATTEMPT_SECONDS) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            reason = explain(error)
            if error.code not in TRY_AGAIN:
                raise NotJudged(reason) from error
            wait = seconds(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, ValueError) as error:  # no connection, no answer, or half of one
            reason, wait = f"{type(error).__name__}: {error}", None
        if wait is None:
            wait = pause * random.uniform(0.5, 1.5)  # not all cameras at once
            pause = min(2 * pause, 5.0)
        if time.monotonic() + wait > deadline:
            raise NotJudged(f"gave up after {patience:g} seconds: {reason}")
        time.sleep(wait)


def url_of(address: str, category: str, labels: dict[str, str]) -> str:
    """Where the picture is posted. Raises NotJudged for what trying again would not mend."""
    if not address.startswith(("http://", "https://")):
        raise NotJudged(f"{address!a} is no address: it begins with http:// or https://")
    try:
        path = f"/v1/categories/{urllib.parse.quote(category, safe='')}/inspections"
        return f"{address.rstrip('/')}{path}?{urllib.parse.urlencode(labels)}"
    except UnicodeEncodeError as error:  # Python has read bytes that are not UTF-8
        raise NotJudged(f"{error.object!a} is not UTF-8: send the text of the label or code in UTF-8") from error


def explain(error: urllib.error.HTTPError) -> str:
    """What JigSight says of a request that it could not judge (RFC 9457 problem+json)."""
    try:
        return f"{error.code}: {json.load(error)['detail']}"
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def seconds(retry_after: str | None) -> float | None:
    """How long the server asks us to wait; None if it does not say."""
    return float(retry_after) if retry_after and retry_after.isdigit() else None


def main() -> int:
    """Inspect one picture; the exit code is the verdict."""
    arguments = argparse.ArgumentParser(description="Inspect one picture of one part.")
    arguments.add_argument("address")
    arguments.add_argument("category")
    arguments.add_argument("picture", type=Path)
    arguments.add_argument("--serial")
    arguments.add_argument("--station")
    arguments.add_argument("--patience", type=float, default=20.0, help="seconds to keep trying")
    given = arguments.parse_args()
    labels = {name: value for name in ("serial", "station") if (value := getattr(given, name)) is not None}
    try:
        picture = given.picture.read_bytes()
        found = inspect(given.address, given.category, picture, labels=labels, patience=given.patience)
        verdict = found["verdict"]
        if verdict not in ("pass", "fail"):
            raise NotJudged(f"the answer has the verdict {verdict!r}")
        scores = f"score {found['score']:.4g} threshold {found['threshold']:.4g}"
        print(f"{verdict} {scores} inspection {found['id']}", flush=True)
    except (NotJudged, OSError) as error:
        print(f"not judged: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError) as error:
        print(f"not judged: the answer is none of JigSight's: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0 if verdict == "pass" else 1


if __name__ == "__main__":
    sys.exit(main())
