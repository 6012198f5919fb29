"""While nothing can be written: one log line when that begins, and one when it is over. In: errors. Out: log lines."""

from __future__ import annotations

import asyncio
import logging

from qtools.backoff import Outage
from qtools.cli.types import format_duration

logger = logging.getLogger("qtools.to_file")


class WriteOutage:
    """An outage of a disk or a store. line: what is logged when it begins, with a place for the reason."""

    def __init__(self, line: str) -> None:
        self._outage = Outage()
        self._line = line

    @property
    def reason(self) -> str:
        """Why nothing can be written now, or ""."""
        return self._outage.reason

    def fail(self, reason: str, *, names_each: bool = False) -> None:
        """Log that a write has failed, if writes worked before. names_each: log each other reason too."""
        is_other = names_each and reason != self._outage.reason
        if self._outage.fail(reason, asyncio.get_running_loop().time()) or is_other:
            logger.error(self._line, reason)

    def end(self) -> None:
        """A write has succeeded: log how long none had, if the last one failed."""
        lasted = self._outage.end(asyncio.get_running_loop().time())
        if lasted is not None:
            logger.warning("writing again, after %s", format_duration(round(lasted, 1)))
