"""Runs of load against servers that are slow, busy, broken or gone."""

import asyncio
import io
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from aiohttp import web
from rich.console import Console

from service.load.errors import LoadError
from service.load.run import Plan, run
from service.load.sender import Parts, Sender, open_loop, open_session
from service.load.summary import Summary
from service.load.tally import Tally
from service.load.target import Target

Answering = Callable[..., AbstractContextManager[str]]

PARTS = Parts([b"one", b"two", b"three"])


def judged(verdict: str = "pass") -> web.Response:
    return web.json_response({"verdict": verdict}, status=201)


def problem(status: int, kind: str, **headers: str) -> web.Response:
    document = {"type": f"urn:jigsight:problem:{kind}", "detail": f"a {kind}"}
    return web.json_response(document, status=status, headers=headers, content_type="application/problem+json")


def load(address: str, parts: Parts = PARTS, **plan: float | None) -> Summary:
    plan = {"rate": 200, "seconds": 0.1, "connections": 50, "timeout": 20} | plan
    return run(Plan(**plan), Target(address, "plate"), parts, console=Console(file=io.StringIO()))  # type: ignore[arg-type]


def test_requests_do_not_wait_for_answers(answering: Answering) -> None:
    waiting = 0
    all_there = asyncio.Event()

    async def answer_once_all_are_there(_: web.Request) -> web.Response:
        nonlocal waiting
        waiting += 1
        if waiting == 20:
            all_there.set()
        await all_there.wait()
        return judged()

    with answering(answer_once_all_are_there) as address:
        summary = load(address)
    assert summary.all_accepted
    assert summary.tally.verdicts == {"pass": 20}


def test_latency_counts_from_when_a_request_was_due(answering: Answering) -> None:
    """One connection and 20 ms an answer: the last of 20 requests, due after 95 ms, is answered after 400 ms."""

    async def answer_slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return judged()

    with answering(answer_slowly) as address:
        summary = load(address, connections=1)
    document = summary.document()
    assert document["accepted_ms"]["max"] >= 300
    assert document["accepted_ms"]["p50"] >= 140
    assert document["achieved_per_second"] <= 50
    assert document["waited_for_connection"] > 0
    assert any("--connections" in warning for warning in document["warnings"])


def test_what_never_got_a_connection_was_not_sent(answering: Answering) -> None:
    there = 0

    async def hang(_: web.Request) -> web.Response:
        nonlocal there
        there += 1
        await asyncio.sleep(60)
        return judged()

    with answering(hang) as address:
        summary = load(address, connections=1, timeout=0.3)
    document = summary.document()
    assert 0 < document["sent"] == there < 20
    assert {each["kind"]: each["count"] for each in document["refusals"]} == {
        "timeout": there,
        "no-connection": 20 - there,
    }
    assert document["unsent"] == 20 - there
    assert document["offered_per_second"] <= there / 0.1
    assert len(summary.tally.refused) == there
    assert not summary.all_accepted
    assert any("never sent" in warning and "not 200/s" in warning for warning in document["warnings"])


def test_the_wait_for_a_connection_does_not_take_from_the_answer_s_time(answering: Answering) -> None:
    """The second waits for 0.4 s and is answered in 0.4 s: within the 0.6 s that each may take."""

    async def answer_slowly(_: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return judged()

    with answering(answer_slowly) as address:
        summary = load(address, connections=1, rate=20, timeout=0.6)
    assert summary.all_accepted, summary.document()
    assert summary.tally.sent == 2


def test_a_sender_that_is_late_says_so_and_does_not_flatter_the_server(answering: Answering) -> None:
    async def judge(_: web.Request) -> web.Response:
        return judged()

    def held_up() -> Iterator[float]:
        yield 0.0
        time.sleep(0.2)  # the whole loop stands still, as on a machine that is too busy
        yield 0.01

    async def send(address: str) -> Tally:
        target = Target(address, "plate")
        async with open_session(target, connections=10) as session:
            tally = Tally(start=asyncio.get_running_loop().time())
            await open_loop(Sender(session, target, PARTS, tally, 20), held_up())
            return tally

    with answering(judge) as address:
        summary = Summary(asyncio.run(send(address)), seconds=0.02, planned=100)
    assert summary.all_accepted
    assert summary.tally.accepted[-1] >= 0.19
    assert "behind its own plan" in summary.warnings[0]


def test_a_closed_loop_has_so_many_in_hand_and_no_more(answering: Answering) -> None:
    in_hand, most = 0, 0
    four = asyncio.Event()

    async def answer_from_four_on(_: web.Request) -> web.Response:
        nonlocal in_hand, most
        in_hand += 1
        most = max(most, in_hand)
        if in_hand == 4:
            four.set()
        await four.wait()
        await asyncio.sleep(0.001)
        in_hand -= 1
        return judged()

    with answering(answer_from_four_on) as address:
        summary = load(address, rate=None, connections=4)
    assert most == 4
    assert summary.tally.sent > 4
    assert summary.all_accepted
    assert summary.planned is None


def test_every_refusal_is_told_by_its_kind(answering: Answering) -> None:
    count = 0

    async def refuse(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        match count % 8:
            case 0:
                return problem(503, "queue-full", **({"Retry-After": "1"} if count > 8 else {}))
            case 1:
                return problem(415, "unsupported-image")
            case 2:
                return web.Response(status=500, text="<b>proxy</b>")
            case 3:
                return web.json_response({"verdict": "maybe"}, status=201)
            case 4:
                raise web.HTTPFound("/elsewhere")
            case 5:
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            case 6:
                await asyncio.sleep(60)
                return judged()
            case _:
                return judged()

    with answering(refuse) as address:
        summary = load(address, rate=160, timeout=0.5)
    found = {(each["status"], each["kind"]): each for each in summary.document()["refusals"]}
    assert set(found) == {
        (503, "urn:jigsight:problem:queue-full"),
        (415, "urn:jigsight:problem:unsupported-image"),
        (500, "text/plain; charset=utf-8"),
        (201, "no-verdict"),
        (302, "text/plain; charset=utf-8"),
        (None, "disconnected"),
        (None, "timeout"),
    }
    assert {each["count"] for each in found.values()} == {2}
    assert count == 16, "nothing is sent twice"
    assert found[503, "urn:jigsight:problem:queue-full"]["without_retry_after"] == 1
    assert found[415, "urn:jigsight:problem:unsupported-image"]["detail"] == "a unsupported-image"
    assert "<b>proxy</b>" in found[500, "text/plain; charset=utf-8"]["detail"]
    assert "0.5 seconds" in found[None, "timeout"]["detail"]
    assert summary.tally.verdicts == {"pass": 2}
    assert not summary.all_accepted


def test_parts_are_sent_in_turn_each_under_its_own_name(answering: Answering) -> None:
    requests: list[tuple[bytes, str, str, str]] = []

    async def remember(request: web.Request) -> web.Response:
        headers = (request.headers["Idempotency-Key"], request.headers["Authorization"])
        requests.append((await request.read(), request.query["serial"], *headers))
        return judged()

    with answering(remember) as address:
        parts = Parts([b"one", bytes(3_000_000)], serial_prefix="lot 7/ä&", idempotent=True)
        target = Target(address, "plate", "jsk_secret")
        assert "jsk_secret" not in repr(target)
        run(Plan(100, 0.06, 1, 20), target, parts, console=Console(file=io.StringIO()))
    bodies, serials, keys, authorizations = zip(*requests, strict=True)
    assert [len(body) for body in bodies] == [3, 3_000_000] * 3
    assert list(serials) == [f"lot 7/ä&{number:06d}" for number in range(6)]
    assert len({uuid.UUID(key) for key in keys}) == 6
    assert set(authorizations) == {"Bearer jsk_secret"}


@pytest.mark.parametrize(
    ("status", "detail", "says"),
    [
        (401, "No key.", "No key. Give a key .*JIGSIGHT_KEY"),
        (403, "This key may not.", "may not. Give a key with the scope `inspect`"),
        (200, "hello", "no JigSight"),
    ],
)
def test_a_server_that_takes_no_pictures_is_said_so_at_once(
    answering: Answering, status: int, detail: str, says: str
) -> None:
    async def judge(_: web.Request) -> web.Response:
        raise AssertionError("no picture is sent")

    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"detail": detail}, status=status)

    with answering(judge, without_picture=refuse) as address, pytest.raises(LoadError, match=says):
        load(address)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(LoadError, match="begins with http://"):
        Target(address, "plate")


def test_no_server(answering: Answering) -> None:
    with answering(None) as address:
        pass
    with pytest.raises(LoadError, match=r"connection-refused.*jigsight serve"):
        load(address)


def test_a_server_that_goes_away_during_the_run_is_a_result(answering: Answering) -> None:
    async def close(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return judged()

    with answering(close) as address:
        summary = load(address)
    assert sum(each["count"] for each in summary.document()["refusals"]) == summary.tally.sent == 20
    assert {each["status"] for each in summary.document()["refusals"]} == {None}
