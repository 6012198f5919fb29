"""The report of messages that can no longer be read. In: damaged blocks. Out: a report, in the log and on disk.

    DIR/damaged/report.jsonl    a line for each block or range of them: topic, blocks, messages, ids, time, reason
    DIR/damaged/block-SEQ       the frames of a block whose checksum is wrong, as they were read

The report is on disk before a channel skips the messages, and is read again at each start. The broker's health is NOK
as long as the directory exists; the administrator moves it away after reading the report.
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
MOST_SAVED = 1024  # files with the frames of a block; more would fill the disk


class UnreadableBlock(Block):
    """Stands for a damaged block, and has no frames. content: what could be read instead of them.

    is_structural: SQLite cannot find the block, so it cannot be removed either.
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
        """Make one. base: 0 when the ids are not known."""
        block = cls.__new__(cls)
        block.seq, block.base, block.count, block.timestamp, block.due = seq, base, count, timestamp, 0
        block.frames = block._offsets = b""  # type: ignore[assignment]
        block.reason, block.content, block.is_structural = reason, content, structural
        return block


class Damage:
    """All damage that was found in this run and before it."""

    def __init__(self, directory: Path) -> None:
        self.lost: list[Lost] = []
        self._directory = directory / DIRECTORY
        self._known: set[tuple[str, int, int, str]] = set()
        self._files = 0
        self._load()

    def _load(self) -> None:
        try:
            lines = (self._directory / REPORT).read_text("utf-8", "replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                fields = json.loads(line)
                found = Lost(**{name: fields[name] for name in Lost._fields})
            except (ValueError, KeyError, TypeError):
                continue  # a line that was not written completely
            self.lost.append(found)
            self._known.add(_key(found))
        log.error("%s: %s", self._directory.parent, self.summary)

    @property
    def summary(self) -> str:
        """One sentence for the health of the broker; empty when nothing was found, or the report was moved away."""
        if not self.lost or not self._directory.is_dir():
            return ""
        messages = sum(one.messages for one in self.lost)
        topics = sorted({one.topic for one in self.lost if one.messages})
        named = ", ".join(topics[:3]) + (", …" if len(topics) > 3 else "")
        what = f"{messages:,} messages of {named} cannot be read" if messages else "the database was damaged"
        return f"{what}: see {self._directory / REPORT}, then move {self._directory} away"

    def add(self, topic: str, block: UnreadableBlock) -> None:
        """Report a block of `topic` that cannot be read."""
        ids = f"{block.base:016x}..{block.base + block.count - 1:016x}" if block.base > 0 else ""
        self.report(Lost(topic, block.seq, block.seq, block.count, ids, _time(block.timestamp), block.reason))
        if block.content and self._files < MOST_SAVED:
            self._files += 1
            with contextlib.suppress(OSError):  # the report is enough; the copy only helps to find the cause
                (self._directory / f"block-{block.seq}").write_bytes(block.content)

    def report_structure(self, why: str) -> None:
        """Report damage that only copying the database can repair, as the next start does (opening.py)."""
        self.report_log(f"the database is damaged ({why}): restart q-broker, which copies what can be read")

    def report_log(self, reason: str) -> None:
        """Report damage of which it is not known which messages are missing."""
        self.report(Lost("(unknown)", 0, 0, 0, "", "", reason))

    def report(self, found: Lost) -> None:
        """Write `found` to the log and to disk, once."""
        key = _key(found)
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


def _key(one: Lost) -> tuple[str, int, int, str]:
    """The same for all reports of the same blocks, which each channel meets."""
    return one.topic, one.first_block, one.last_block, "" if one.first_block else one.reason


def sentence(one: Lost) -> str:
    """A sentence that says what is missing."""
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
