"""Talk on stderr: one line an event, as text or as JSON. Bytes go to stdout, talk never does.

In: what is told to the loggers under `qtools`. Out: lines. A progress line on the terminal is lifted
out of the way for each.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable


class _StderrHandler(logging.Handler):
    def __init__(self, program: str, as_json: bool, prefix: str) -> None:
        super().__init__()
        self.program = program
        self.prefix = prefix
        self.as_json = as_json
        self.lift: Callable[[], None] = lambda: None  # clears the progress line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._as_json(record) if self.as_json else f"{self.prefix}{record.getMessage()}"
            if record.exc_info and not self.as_json:
                line += "\n" + self._traceback(record)
            self.lift()
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody listens to our talk; the work goes on

    def _as_json(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        told = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": getattr(record, "json_level", record.levelname.lower()),
            "program": self.program,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["traceback"] = self._traceback(record)
        return json.dumps(told)

    @staticmethod
    def _traceback(record: logging.LogRecord) -> str:
        assert record.exc_info is not None
        return logging.Formatter().formatException(record.exc_info)


_talk: _StderrHandler | None = None


def set_up(
    program: str, *, quiet: bool = False, verbose: int = 0, as_json: bool = False, prefix: str | None = None
) -> None:
    """Let the loggers under `qtools` speak: warnings by default, with -v what goes on, with -q errors only.

    `prefix` begins each line of text, by default the program's name.
    """
    global _talk
    logger = logging.getLogger("qtools")
    if _talk is not None:
        logger.removeHandler(_talk)
    _talk = _StderrHandler(program, as_json, f"{program}: " if prefix is None else prefix)
    logger.addHandler(_talk)
    logging.lastResort = _talk  # what a library warns of has the same form
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))


def is_set_up() -> bool:
    return _talk is not None


def is_json() -> bool:
    """Whether every line has to be a JSON object."""
    return _talk is not None and _talk.as_json


def defect(text: str, error: BaseException | None) -> None:
    """A defect of ours: one line, with the traceback where QTOOLS_DEBUG is set or a machine reads."""
    told = error if os.environ.get("QTOOLS_DEBUG") or is_json() else None
    logging.getLogger("qtools").error("internal error: %s: %r", text, error, exc_info=told)


def lift_with(lift: Callable[[], None]) -> None:
    """Call `lift` before each line of talk, to clear a progress line."""
    if _talk is not None:
        _talk.lift = lift


def say(level: int, text: str) -> None:
    """One line of talk from the command itself."""
    logging.getLogger("qtools").log(level, "%s", text)


def say_result(text: str) -> None:
    """One line about what went well, such as the summary: shown by default, as warnings are; its level as JSON is
    "info"."""
    logging.getLogger("qtools").warning("%s", text, extra={"json_level": "info"})
