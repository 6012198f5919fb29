"""Talk on stderr: a line an event, as text or as JSON."""

from __future__ import annotations

import json
import logging
import re

import pytest

from qtools.cli import logs

LEVELS = [logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR]


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, ["WARNING", "ERROR"]),
        ({"quiet": True}, ["ERROR"]),
        ({"quiet": True, "verbose": 2}, ["ERROR"]),
        ({"verbose": 1}, ["INFO", "WARNING", "ERROR"]),
        ({"verbose": 2}, ["DEBUG", "INFO", "WARNING", "ERROR"]),
        ({"verbose": 5}, ["DEBUG", "INFO", "WARNING", "ERROR"]),
    ],
)
def test_who_is_heard(settings: dict[str, int], shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-test", **settings)  # type: ignore[arg-type]
    for level in LEVELS:
        logging.getLogger("qtools.client").log(level, "%s", logging.getLevelName(level))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "".join(f"q-test: {level}\n" for level in shown)


def test_json_has_the_time_the_level_the_program_and_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-test", as_json=True)
    logs.log(logging.WARNING, 'a "quoted" word\nand another line, ü')
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", told.pop("time"))
    assert told == {"level": "warning", "program": "q-test", "message": 'a "quoted" word\nand another line, ü'}


def test_setting_up_again_replaces_what_was(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-one")
    logs.set_up("q-two")
    logs.log(logging.WARNING, "once")
    assert capsys.readouterr().err == "q-two: once\n"


def test_what_is_told_with_percent_signs_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-test")
    logs.log(logging.ERROR, "100 % of %s")
    assert capsys.readouterr().err == "q-test: 100 % of %s\n"


def test_the_progress_line_is_lifted_before_each_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("q-test")
    order: list[str] = []
    logs.set_line_clearer(lambda: order.append(capsys.readouterr().err))
    logs.log(logging.ERROR, "one")
    logs.log(logging.ERROR, "two")
    assert order == ["", "q-test: one\n"]


def test_nobody_listening_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    logs.set_up("q-test")
    monkeypatch.setattr("sys.stderr", Gone())
    logs.log(logging.ERROR, "to nobody")
