"""The thread that looks: again and again, whatever happens, and never after its end."""

import threading

import pytest

from service.registry.watcher import watching


def test_it_looks_until_it_is_told_to_stop(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[threading.Thread] = []
    enough = threading.Event()

    def look() -> None:
        looks.append(threading.current_thread())
        if len(looks) == 3:
            enough.set()
        raise OSError("the folder is on a disk that hiccups")

    with watching(look, seconds=0.001):
        assert enough.wait(timeout=60)
    assert not looks[0].is_alive()
    assert looks[0] is not threading.current_thread()
    assert "hiccups" in caplog.text


def test_it_stops_without_waiting_for_its_turn() -> None:
    with watching(lambda: None, seconds=1e6):
        pass
