"""Searches a database for damage. In: a connection. Out: sentences that say what is wrong; nothing is written.

`find_damage` is for the start of the broker: it checks the structure, and the rows of topics, channels and progress.
`check` also reads all blocks, for `q-broker check`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from qtools.broker.core.block import Block
from qtools.broker.core.store import Lost
from qtools.broker.disk.database import FILE, VERSION, connect
from qtools.broker.disk.integrity.damage import DIRECTORY, REPORT, UnreadableBlock, sentence
from qtools.broker.disk.integrity.wal import damage_of_log
from qtools.broker.disk.read_patience import is_unreadable
from qtools.broker.disk.reader import numbers, read_one
from qtools.errors import QtoolsError

# The columns of the tables without messages, in the order of their checksums.
STATE = {
    "topic": "id, name, paused, held_from",
    "channel": "id, topic, name, paused, low, sent",
    "progress": "channel, seq, done, attempts, due, next_due, unfinished",
}


def find_damage(connection: sqlite3.Connection, *, whole: bool, most_rows: int | None = None) -> str:
    """A clause that says what is wrong, or "".

    whole: check the structure of all pages, not only of the small tables. most_rows: the checksums of a table with more
    rows are not compared.

    Raises sqlite3.Error for errors other than damage.
    """
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        scopes = ["PRAGMA integrity_check(1)"] if whole else [f"PRAGMA quick_check('{table}')" for table in STATE]
        for scope in scopes:
            found = str(connection.execute(scope).fetchone()[0])
            if found != "ok":
                return found.splitlines()[-1]
        for table, columns in STATE.items():
            if most_rows is not None and count_rows(connection, table) > most_rows:
                continue
            (wrong,) = connection.execute(
                f"SELECT count(*) FROM {table} WHERE checksum IS NOT row_checksum({columns})"
            ).fetchone()
            if wrong:
                return f"the checksum of {wrong:,} rows of table {table} is wrong"
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "") or ""
        if name and not name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR", "SQLITE_SCHEMA")):
            raise
        return str(error)
    return ""


def count_rows(connection: sqlite3.Connection, table: str) -> int:
    """The number of rows of a table."""
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def check(directory: Path, tell: Callable[[str], None]) -> bool:
    """Read everything in `directory`, and call `tell` with each line of the result. Returns whether nothing is
    damaged."""
    path = directory / FILE
    if not path.exists():
        raise QtoolsError(f"{path} is not there: `q-broker check` wants the directory that --data-path names")
    problems = 0

    def wrong(line: str) -> None:
        nonlocal problems
        problems += 1
        tell(line)

    report = directory / DIRECTORY / REPORT
    if report.exists():
        wrong(f"messages were set aside before: see {report}")
    try:
        log = damage_of_log(path.with_name(FILE + "-wal"))
        if log:
            wrong(f"{path}-wal: {log}")
            return False  # opening it would discard everything after the damage
        if not os.path.getsize(path):
            wrong(f"{path} is empty")
            return False
        connection = connect(path, read_only=True)
    except OSError as error:
        raise QtoolsError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    except sqlite3.Error as error:
        wrong(f"{path}: {error}")
        return False
    try:
        found = _check_all(connection, path, wrong)
    except (sqlite3.Error, UnicodeDecodeError) as error:
        wrong(f"{path}: {error}")
        found = ""
    finally:
        connection.close()
    if found:
        tell(found if problems else f"all good: {found}")
    return not problems


def _check_all(connection: sqlite3.Connection, path: Path, wrong: Callable[[str], None]) -> str:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise QtoolsError(f"{path} has format {version}: a q-broker of this version upgrades it when it starts")
    damage = find_damage(connection, whole=True)
    if damage:
        wrong(f"{path}: {damage}")
    messages = damaged = 0
    names = dict(connection.execute("SELECT id, name FROM topic"))
    for topic, name in names.items():
        for block in topic_blocks(connection, topic):
            if not isinstance(block, UnreadableBlock):
                messages += block.count
            else:
                damaged += block.count
                wrong(sentence(Lost(name or "(deleted)", block.seq, block.seq, block.count, "", "", block.reason)))
    lost = f", {damaged:,} damaged" if damaged else ""
    return f"{path}: {len(names):,} topic{'' if len(names) == 1 else 's'}, {messages:,} messages read{lost}"


def topic_blocks(connection: sqlite3.Connection, topic: int) -> Iterator[Block]:
    """Every block of a topic, deferred ones too; an UnreadableBlock for each that is damaged."""
    (stop,) = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM block").fetchone()
    for seq, count, timestamp in numbers(connection, topic, 0, stop, is_unreadable, deferred=None):
        block = read_one(connection, topic, seq, is_unreadable, count, timestamp)
        if block is not None:
            yield block
