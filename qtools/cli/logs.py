"""Log lines on stderr: one line an event, as text or as JSON. Log lines never go to stdout, which is for messages.

In: the records of the loggers below `qtools`. Out: lines. A progress line on the terminal is cleared before each of
them.
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
        self.clear_line: Callable[[], None] = lambda: None  # clears the progress line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._as_json(record) if self.as_json else f"{self.prefix}{record.getMessage()}"
            if record.exc_info and not self.as_json:
                line += "\n" + self._traceback(record)
            self.clear_line()
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except OSError:
            pass  # stderr is closed; the run goes on

    def _as_json(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": getattr(record, "json_level", record.levelname.lower()),
            "program": self.program,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self._traceback(record)
        return json.dumps(fields)

    @staticmethod
    def _traceback(record: logging.LogRecord) -> str:
        assert record.exc_info is not None
        return logging.Formatter().formatException(record.exc_info)


_talk: _StderrHandler | None = None


def set_up(
    program: str, *, quiet: bool = False, verbose: int = 0, as_json: bool = False, prefix: str | None = None
) -> None:
    """Log to stderr what the loggers below `qtools` receive. quiet: errors only; verbose: 0 warnings, 1 information, 2
    debugging.

    prefix: the beginning of each line of text. Default: the program's name.
    """
    global _talk
    logger = logging.getLogger("qtools")
    if _talk is not None:
        logger.removeHandler(_talk)
    _talk = _StderrHandler(program, as_json, f"{program}: " if prefix is None else prefix)
    logger.addHandler(_talk)
    logging.lastResort = _talk  # warnings of libraries get the same form
    logger.propagate = False
    logger.setLevel(logging.ERROR if quiet else {0: logging.WARNING, 1: logging.INFO}.get(verbose, logging.DEBUG))


def is_set_up() -> bool:
    return _talk is not None


def is_json() -> bool:
    """Whether log lines are JSON objects."""
    return _talk is not None and _talk.as_json


def log_defect(text: str, error: BaseException | None) -> None:
    """Log a defect of qtools as one line; with the traceback if QTOOLS_DEBUG is set, or log lines are JSON."""
    traceback = error if os.environ.get("QTOOLS_DEBUG") or is_json() else None
    logging.getLogger("qtools").error("internal error: %s: %r", text, error, exc_info=traceback)


def set_line_clearer(clear: Callable[[], None]) -> None:
    """Call `clear` before each log line; it clears the progress line."""
    if _talk is not None:
        _talk.clear_line = clear


def log(level: int, text: str) -> None:
    """Log one line from the command itself. level: logging.WARNING and so on."""
    logging.getLogger("qtools").log(level, "%s", text)


def log_result(text: str) -> None:
    """Log one line about a result, such as the summary. By default it is shown, as a warning would be, but its level in
    JSON is "info"."""
    logging.getLogger("qtools").warning("%s", text, extra={"json_level": "info"})
