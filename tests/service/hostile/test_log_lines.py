"""What a client sends cannot pass for another event of the log."""

import logging

from service.logs import FIELDS, TextFormatter


def test_an_event_as_text_stays_on_its_line() -> None:
    record = logging.LogRecord("service", logging.INFO, "", 0, "answered", (), None)
    setattr(record, FIELDS, {"path": "/v1/parts/a\n2030-01-01 ERROR\x1b[2K\u2028№ 1", "status": 404})
    line = TextFormatter("%(message)s").format(record)
    assert line == r"answered  [path=/v1/parts/a\n2030-01-01 ERROR\x1b[2K\u2028№ 1 status=404]"
