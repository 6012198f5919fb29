"""Makes a new database out of a damaged one. In: a data directory that no other process uses. Out: a new database
there.

    messages.db ─ everything that can be read ─▶ messages.db.repaired ─▶ messages.db
        └──────────────────────────────────────▶ damaged/messages.db-TIME, as it was

Messages that cannot be read are reported (damage.py). If the row of a channel is damaged, its position is not known:
the channel begins again with all messages there are, so that messages are delivered twice rather than not at all. The
names of topics and channels are in the database twice, in a table and in its index.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qtools.broker.core.block import Block
from qtools.broker.core.store import Lost
from qtools.broker.disk.database import FILE, connect, make_database
from qtools.broker.disk.integrity.checksum import row_checksum
from qtools.broker.disk.integrity.damage import DIRECTORY, Damage, UnreadableBlock
from qtools.broker.disk.reader import checked
from qtools.broker.disk.transaction import INSERT, block_row
from qtools.hard_links import NO_LINKS

log = logging.getLogger("qtools.broker")

_COLUMNS = "seq, topic, base, count, timestamp, due, offsets, frames, checksum"
_STEP = 64  # blocks in one transaction
_MOST_PROBED = 10_000_000  # block numbers that are tried one by one when both the table and its index are damaged

Rows = dict[int, tuple[Any, ...]]


def repair(directory: Path, why: str, damage: Damage) -> None:
    """Replace the damaged database. Raises sqlite3.Error or OSError when that fails; the database is then left as it
    is."""
    path = directory / FILE
    log.error("%s is damaged (%s): what can be read of it is copied to a new one", path, why)
    new = path.with_name(FILE + ".repaired")
    _remove(new)
    try:
        kept = _copy(path, new, damage)
        _sync(new)
        _put_in_place(path, new)
    except BaseException:
        with contextlib.suppress(OSError):  # half a copy takes space that the next try needs
            _remove(new)
        raise
    log.error("%s: %d blocks were copied; the damaged file is in %s", path, kept, directory / DIRECTORY)


def _remove(path: Path) -> None:
    """The files of a database."""
    for ending in ("", "-wal", "-shm", "-journal", ".new", ".new-journal"):
        path.with_name(path.name + ending).unlink(missing_ok=True)


def _copy(path: Path, new: Path, damage: Damage) -> int:
    """Copy what can be read of the database at `path` to a new one at `new`. Returns how many blocks were copied."""
    make_database(new)
    old, target = connect(path, is_cut=True), connect(new)
    try:
        for table in ("topic", "channel", "block", "progress"):  # otherwise the schema is damaged
            old.execute(f"SELECT checksum FROM {table} LIMIT 0").fetchall()
        with contextlib.suppress(sqlite3.Error):
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        old.execute("PRAGMA query_only = ON")
        old.execute("PRAGMA cell_size_check = ON")
        target.execute("PRAGMA synchronous = OFF")
        return _Copy(old, target, damage).run()
    finally:
        old.close()
        target.close()


def _put_in_place(path: Path, new: Path) -> None:
    aside = path.parent / DIRECTORY
    aside.mkdir(mode=0o700, exist_ok=True)
    kept = aside / f"{FILE}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    nth = 0
    while kept.exists():
        nth += 1
        kept = kept.with_name(f"{kept.name}.{nth}")
    _keep(path, kept)
    for ending in ("-wal", "-shm"):  # they would be taken for those of the new database
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + ending).replace(kept.with_name(kept.name + ending))
    new.replace(path)
    _sync(path.parent)
    _sync(aside)


def _keep(path: Path, kept: Path) -> None:
    """Give the damaged file the name `kept` as well: there has to be a database at `path` at any moment, as a broker
    that finds none begins with an empty one. Without hard links `kept` is a copy."""
    try:
        os.link(path, kept)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        try:
            shutil.copyfile(path, kept)
            kept.chmod(stat.S_IMODE(path.stat().st_mode))
            _sync(kept)
        except BaseException:
            kept.unlink(missing_ok=True)
            raise


def _sync(path: Path) -> None:
    held = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(held)
    finally:
        os.close(held)


class _Copy:
    """Copies from one connection to another."""

    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection, damage: Damage) -> None:
        self._old, self._new, self._damage = old, new, damage
        self._topics: Rows = {}
        self._without_row: set[int] = set()  # topics of which only the number, and perhaps the name, is known
        self._indexed: dict[int, tuple[int, int, int]] = {}  # seq → topic, count, timestamp

    def run(self) -> int:
        """Copy everything. Returns how many blocks were copied."""
        self._new.execute("BEGIN IMMEDIATE")
        self._copy_topics()
        channels = self._copy_channels()
        self._copy_progress(channels)
        self._new.execute("COMMIT")
        copied = 0
        rows: list[tuple[object, ...]] = []
        for topic, block in self._blocks():
            self._name(topic)
            rows.append(block_row(topic, block))
            copied += 1
            if len(rows) >= _STEP:
                self._write(rows)
        self._write(rows)
        # A row of progress of a missing block would be counted as waiting messages.
        self._new.execute("DELETE FROM progress WHERE seq NOT IN (SELECT seq FROM block)")
        # Channels receive the messages that the topic held after all others. Without a channel, the topic still holds
        # them.
        self._new.executemany(
            "UPDATE topic SET held_from = 0, checksum = row_checksum(id, name, paused, 0)"
            " WHERE id = ? AND NOT EXISTS (SELECT 1 FROM channel WHERE channel.topic = topic.id)",
            [(topic,) for topic in self._without_row],
        )
        return copied

    def _write(self, rows: list[tuple[object, ...]]) -> None:
        self._new.execute("BEGIN IMMEDIATE")
        self._new.executemany(INSERT, rows)
        self._new.execute("COMMIT")
        rows.clear()

    # ── topics and channels ─────────────────────────────────────────────────────────────────────

    def _read(self, query: str) -> Iterator[tuple[Any, ...]]:
        """All rows up to the first damage; then the rows from the other end."""
        seen = set()
        for order in ("ASC", "DESC"):
            try:
                for row in self._old.execute(query.format(order)):
                    if row[0] not in seen:
                        seen.add(row[0])
                        yield row
            except (sqlite3.Error, UnicodeDecodeError, OverflowError):
                continue
            return
        table = query.partition(" FROM ")[2].split()[0]
        self._report(f"table {table} is damaged: some of its rows may be missing")

    def _report(self, reason: str, topic: str = "(unknown)") -> None:
        self._damage.report(Lost(topic, 0, 0, 0, "", "", reason))

    def _copy_topics(self) -> None:
        rows: Rows = {}
        for ident, name, paused, held_from, checksum in self._read(
            "SELECT id, name, paused, held_from, checksum FROM topic NOT INDEXED ORDER BY id {}"
        ):
            if row_checksum(ident, name, paused, held_from) == checksum:
                rows[ident] = (ident, name, paused, held_from)
        for ident, name in self._read(
            "SELECT id, name FROM topic INDEXED BY sqlite_autoindex_topic_1 WHERE name >= '' ORDER BY name {}"
        ):
            if isinstance(ident, int) and isinstance(name, str) and ident not in rows:
                rows[ident] = (ident, name, 0, None)
                self._without_row.add(ident)
                self._report("its row is damaged: whether it was paused is unknown, and it is not", name)
        for row in rows.values():
            self._add_topic(row)

    def _add_topic(self, row: tuple[Any, ...]) -> None:
        self._topics[row[0]] = row
        self._new.execute(
            "INSERT OR IGNORE INTO topic (id, name, paused, held_from, checksum) VALUES (?, ?, ?, ?, ?)",
            (*row, row_checksum(*row)),
        )

    def _name(self, topic: int) -> str:
        """The name of a topic. A topic with an unknown name gets a new one, and keeps its messages."""
        if topic not in self._topics:
            name = f"damaged-topic-{topic}"
            self._add_topic((topic, name, 0, None))
            self._without_row.add(topic)
            self._report(f"the name of topic number {topic} cannot be read: its messages are in this topic", name)
        return str(self._topics[topic][1] or "(deleted)")

    def _copy_channels(self) -> set[int]:
        rows: Rows = {}
        for *columns, checksum in self._read(
            "SELECT id, topic, name, paused, low, sent, checksum FROM channel NOT INDEXED ORDER BY id {}"
        ):
            if row_checksum(*columns) == checksum:
                rows[columns[0]] = tuple(columns)
        for ident, topic, name in self._read(
            "SELECT id, topic, name FROM channel INDEXED BY sqlite_autoindex_channel_1 ORDER BY topic {0}, name {0}"
        ):
            if isinstance(ident, int) and isinstance(topic, int) and isinstance(name, str) and ident not in rows:
                rows[ident] = (ident, topic, name, 0, 0, 0)
                again = "how far it was cannot be read, and all that is there comes again"
                self._report(f"the row of channel {name} is damaged: {again}", self._name(topic))
        for row in rows.values():
            self._new.execute(
                "INSERT OR IGNORE INTO channel (id, topic, name, paused, low, sent, checksum)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, row_checksum(*row)),
            )
        return set(rows)

    def _copy_progress(self, channels: set[int]) -> None:
        """Copy progress. Damaged rows are left out: all messages of their blocks are delivered again."""
        copied: set[tuple[int, int]] = set()
        for order in ("ASC", "DESC"):
            try:
                for *row, checksum in self._old.execute(
                    "SELECT channel, seq, done, attempts, due, next_due, unfinished, checksum FROM progress NOT INDEXED"
                    f" ORDER BY channel {order}, seq {order}"
                ):
                    if row[0] in channels and (row[0], row[1]) not in copied and row_checksum(*row) == checksum:
                        copied.add((row[0], row[1]))
                        self._new.execute("INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, checksum))
            except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
                log.error("some of what channels had finished cannot be read, and is delivered again: %s", error)
                continue
            return

    # ── blocks ──────────────────────────────────────────────────────────────────────────────────

    def _blocks(self) -> Iterator[tuple[int, Block]]:
        """Copy all blocks that are whole, in order, and report the others."""
        broken: list[int] = []
        for seq in self._numbers():
            try:
                row = self._old.execute(f"SELECT {_COLUMNS} FROM block NOT INDEXED WHERE seq = ?", (seq,)).fetchone()
                reason = "the database is damaged (the block is in its index only)"
            except Exception as error:
                row, reason = None, f"the database is damaged ({type(error).__name__}: {error})"
                broken.append(seq)
            if row is None:
                if seq in self._indexed:
                    topic, count, timestamp = self._indexed[seq]
                    self._damage.add(self._name(topic), UnreadableBlock.made(seq, 0, count, timestamp, reason))
                continue
            topic = self._indexed[seq][0] if seq in self._indexed else row[1]
            if not isinstance(topic, int):
                topic = 0
            block = checked(row, topic, seq)
            if isinstance(block, UnreadableBlock):
                if seq in self._indexed:
                    block.count = self._indexed[seq][1]
                self._damage.add(self._name(topic), block)
            else:
                yield topic, block
        unknown = [seq for seq in broken if seq not in self._indexed]
        if unknown:
            reason = "neither the blocks nor their index can be read: how many, and of which topics, is unknown"
            self._damage.report(Lost("(unknown)", unknown[0], unknown[-1], 0, "", "", reason))

    def _numbers(self) -> list[int]:
        """The numbers of all blocks that there are or may be."""
        numbers: set[int] = set()
        is_whole = self._read_numbers(
            "SELECT seq, topic, count, timestamp FROM block INDEXED BY block_of_topic ORDER BY topic {0}, seq {0}",
            self._note,
        )
        numbers.update(self._indexed)
        ends: list[int] = []
        is_whole &= self._read_numbers(
            "SELECT seq, 0, 0, 0 FROM block NOT INDEXED ORDER BY seq {}", lambda seq, *_: numbers.add(seq), ends
        )
        if not is_whole and len(ends) == 2 and ends[1] - ends[0] < _MOST_PROBED:
            numbers.update(range(ends[0], ends[1] + 1))
        return sorted(numbers)

    def _note(self, seq: int, topic: int, count: int, timestamp: int) -> None:
        self._indexed[seq] = (topic, count, timestamp)

    def _read_numbers(self, query: str, note: Any, ends: list[int] | None = None) -> bool:
        """Read from both ends, up to the damage. Returns whether there was none. ends: the last number from each
        end."""
        for order in ("ASC", "DESC"):
            last = 0 if order == "ASC" else self._highest()
            try:
                for row in self._old.execute(query.format(order)):
                    if all(isinstance(one, int) and one >= 0 for one in row):
                        last = row[0]
                        note(*row)
            except (sqlite3.Error, UnicodeDecodeError, OverflowError):
                if ends is not None:
                    ends.append(last)
                continue
            return order == "ASC"
        return False

    def _highest(self) -> int:
        """The highest number that a block has, as far as is known."""
        return max(self._indexed, default=0)
