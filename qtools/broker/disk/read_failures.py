"""What happens when blocks cannot be read. In: damaged blocks, and the reasons of reads that failed. Out: log messages,
the report of the damage (integrity/damage.py), and blocks that retention cannot delete.

    a block is damaged       reported with its topic and its messages; the channels go on without it
    a read fails             logged once, until a read works again; a damaged database is reported too

Never here: the decision to read again, which is the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from qtools.broker.disk.integrity.damage import Damage, UnreadableBlock
from qtools.broker.disk.retention import Sweeper
from qtools.broker.disk.write_failures import AGAIN

log = logging.getLogger("qtools.broker")


class ReadFailures:
    """Failed reads of the database in `directory`. topic_name: the name of the topic with a number, for the report."""

    def __init__(self, directory: Path, damage: Damage, sweeper: Sweeper, topic_name: Callable[[int], str]) -> None:
        self._directory = directory
        self._damage = damage
        self._sweeper = sweeper
        self._topic_name = topic_name
        self._last_reason = ""

    def note_damage(self, topic: int, block: UnreadableBlock) -> None:
        """Report a block of the topic with the number `topic`."""
        self._damage.add(self._topic_name(topic), block)
        if block.is_structural:
            self._sweeper.undeletable.add(block.seq)

    def note_failure(self, why: str, is_damaged: bool = False) -> None:
        """Log that a read has failed, and why; with an empty reason, that reads work again."""
        if why == self._last_reason:
            return
        self._last_reason = why
        if is_damaged:
            self._damage.report_structure(why)
        if not why:
            log.warning("%s: messages can be read again", self._directory)
        else:
            log.error("%s: %s; trying again every %g s", self._directory, why, AGAIN)
