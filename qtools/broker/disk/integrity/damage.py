"""What cannot be read from the database any more. In: blocks that failed. Out: a report, in the log and on disk.

    DIR/damaged/report.jsonl    a line for each block or range of them: topic, blocks, messages, ids, time, reason
    DIR/damaged/block-SEQ       the frames of a block whose checksum is wrong, as they were read

The report is on disk before a channel passes over the messages, and it is read again at each start: the broker's health
is NOK as long as the directory is there. Whoever has seen it moves the directory away.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from qtools.broker.core.block import Block
from qtools.broker.core.store import Lost

log = logging.getLogger("qtools.broker")

DIRECTORY = "damaged"
REPORT = "report.jsonl"
MOST_SAVED = 1024  # files with the frames of a block; more would only fill the disk


class UnreadableBlock(Block):
    """Stands for a block that is damaged; has no frames. `content`: what could be read in their place.

    is_structural: the database cannot find its way to it, so that it cannot be removed either.
    """

    __slots__ = ("content", "is_structural", "reason")

    reason: str
    content: bytes
    is_structural: bool

    @classmethod
    def made(
        cls,
        seq: int,
        base: int,
        count: int,
        timestamp: int,
        reason: str,
        content: bytes = b"",
        structural: bool = False,
    ) -> UnreadableBlock:
        """`base` is 0 where the ids are not known."""
        block = cls.__new__(cls)
        block.seq, block.base, block.count, block.timestamp, block.due = seq, base, count, timestamp, 0
        block.frames = block._offsets = b""  # type: ignore[assignment]
        block.reason, block.content, block.is_structural = reason, content, structural
        return block


class Damage:
    """All that was found so far, in this run and before it."""

    def __init__(self, directory: Path) -> None:
        self.lost: list[Lost] = []
        self._directory = directory / DIRECTORY
        self._known: set[tuple[str, int, str]] = set()
        self._files = 0
        self._load()

    def _load(self) -> None:
        try:
            lines = (self._directory / REPORT).read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                told = json.loads(line)
                found = Lost(**{name: told[name] for name in Lost._fields})
            except (ValueError, KeyError, TypeError):
                continue  # the end of a line that was being written
            self.lost.append(found)
            self._known.add((found.topic, found.first_block, "" if found.first_block else found.reason))
        log.error("%s: %s", self._directory.parent, self.summary)

    @property
    def summary(self) -> str:
        """One sentence for the health of the broker; empty when nothing was found, or its report was moved away."""
        if not self.lost or not self._directory.is_dir():
            return ""
        messages = sum(one.messages for one in self.lost)
        topics = sorted({one.topic for one in self.lost if one.messages})
        named = ", ".join(topics[:3]) + (", …" if len(topics) > 3 else "")
        what = f"{messages:,} messages of {named} cannot be read" if messages else "the database was damaged"
        return f"{what}: see {self._directory / REPORT}, then move {self._directory} away"

    def add(self, topic: str, block: UnreadableBlock) -> None:
        """A block of `topic` cannot be read."""
        ids = f"{block.base:016x}..{block.base + block.count - 1:016x}" if block.base > 0 else ""
        self.report(Lost(topic, block.seq, block.seq, block.count, ids, _time(block.timestamp), block.reason))
        if block.content and self._files < MOST_SAVED:
            self._files += 1
            with contextlib.suppress(OSError):  # the report says what is missing; the copy only helps to look into it
                (self._directory / f"block-{block.seq}").write_bytes(block.content)

    def report_structure(self, why: str) -> None:
        """The database is damaged in a way that only copying it can mend: the next start does (opening.py)."""
        self.report_log(f"the database is damaged ({why}): restart q-broker, which copies what can be read")

    def report_log(self, reason: str) -> None:
        """Nobody knows what is missing."""
        self.report(Lost("(unknown)", 0, 0, 0, "", "", reason))

    def report(self, found: Lost) -> None:
        """Note it, once, in the log and on disk."""
        key = (found.topic, found.first_block, "" if found.first_block else found.reason)
        if key in self._known:
            return
        self._known.add(key)
        self.lost.append(found)
        log.error("%s", sentence(found))
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            held = os.open(self._directory / REPORT, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(held, (json.dumps(found._asdict(), ensure_ascii=False) + "\n").encode())
                os.fsync(held)
            finally:
                os.close(held)
        except OSError as error:
            log.error("cannot write %s: %s", self._directory / REPORT, (error.strerror or str(error)).lower())


def sentence(one: Lost) -> str:
    """What is missing, for people."""
    if not one.last_block:
        return one.reason if one.topic == "(unknown)" else f"topic {one.topic}: {one.reason}"
    many = one.first_block != one.last_block
    blocks = f"blocks {one.first_block} to {one.last_block}" if many else f"block {one.first_block}"
    more = f", ids {one.ids}" if one.ids else ""
    more += f", published {one.published}" if one.published else ""
    count = f"{one.messages:,} messages" if one.messages else "an unknown number of messages"
    return f"topic {one.topic}: {count} cannot be read ({blocks}{more}): {one.reason}"


def _time(timestamp: int) -> str:
    try:
        return datetime.fromtimestamp(timestamp // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if timestamp else ""
    except (ValueError, OverflowError, OSError):
        return ""
