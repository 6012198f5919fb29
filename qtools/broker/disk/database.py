"""The database file: its schema, and how it is opened. In: a path. Out: connections.

    topic     id, name (NULL: deleted, its blocks are still being removed), paused, held_from, checksum
    channel   id, topic, name, paused, low, sent, checksum
    block     seq, topic, base, count, timestamp, due, size, checksum, offsets, frames
    progress  channel, seq, done, attempts, due, next_due, unfinished, checksum

A row of `block` holds messages that were published together. A row of `progress` exists only for a block that a channel
has finished in part, or out of order. Its `next_due` is above 0 when all of its `unfinished` messages are deferred: the
time at which the first of them is due (ns since 1970).
A channel has finished every block below `low`, and every message with a number below `sent` was delivered to it at
least once. No channel has received the blocks of a topic from `held_from` on; NULL: the channels have received all.

Each statement that changes a row also writes its checksum (integrity/checksum.py). `row_checksum` is an SQL function of
each connection.

A file that q-broker did not make, or that is not whole, is never written to.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from qtools.broker.disk.integrity.checksum import UNCHECKED, row_checksum
from qtools.errors import StartError

log = logging.getLogger("qtools.broker")

Statement = tuple[str, list[tuple[object, ...]]]  # an SQL statement, and its rows of parameters

FILE = "messages.db"
_APPLICATION = 0x71427266  # "qBrf", in the file's header

# The format of the file, raised at most once for each release. All changes of a release have the same number. They go
# into _SCHEMA, for a new file, and into _UPGRADE, which converts a file of the release before.
#   1  the first one
#   2  deferred messages by their due times; checksums
VERSION = 2
_MAGIC = b"SQLite format 3\0"

# Blocks have some hundred KB: they are written a third faster with large pages, and single messages hardly slower.
_PAGE = 16384
_CACHE_KIB = 4096  # of each connection; the system caches the file too
WAL = 8 * 1024 * 1024  # bytes; smaller on small volumes

SYNCS = {"full": "FULL", "normal": "NORMAL", "off": "OFF"}

# Blocks that were published deferred: in the order of publishing, and in the order of their due times.
_BLOCK_INDEXES = (
    "CREATE INDEX block_due ON block (topic, seq, count, due) WHERE due > 0",
    "CREATE INDEX block_by_due ON block (topic, due, seq) WHERE due > 0",
)
_PROGRESS_INDEX = "CREATE INDEX progress_by_due ON progress (channel, next_due, seq, unfinished) WHERE next_due > 0"

_SCHEMA = (
    "CREATE TABLE topic (id INTEGER PRIMARY KEY, name TEXT UNIQUE, paused INTEGER NOT NULL, held_from INTEGER,"
    " checksum INTEGER NOT NULL)",
    "CREATE TABLE channel (id INTEGER PRIMARY KEY, topic INTEGER NOT NULL, name TEXT NOT NULL,"
    " paused INTEGER NOT NULL, low INTEGER NOT NULL, sent INTEGER NOT NULL, checksum INTEGER NOT NULL,"
    " UNIQUE (topic, name))",
    "CREATE TABLE block (seq INTEGER PRIMARY KEY, topic INTEGER NOT NULL, base INTEGER NOT NULL,"
    " count INTEGER NOT NULL, timestamp INTEGER NOT NULL, due INTEGER NOT NULL, size INTEGER NOT NULL,"
    " checksum INTEGER NOT NULL, offsets BLOB NOT NULL, frames BLOB NOT NULL)",
    # It covers all columns that are read of many blocks at once, so that pages with frames are not read.
    "CREATE INDEX block_of_topic ON block (topic, seq, count, due, timestamp, size)",
    *_BLOCK_INDEXES,
    "CREATE TABLE progress (channel INTEGER NOT NULL, seq INTEGER NOT NULL, done BLOB, attempts BLOB, due BLOB,"
    " next_due INTEGER NOT NULL DEFAULT 0, unfinished INTEGER NOT NULL DEFAULT 0, checksum INTEGER NOT NULL,"
    " PRIMARY KEY (channel, seq)) WITHOUT ROWID",
    _PROGRESS_INDEX,
)

# Adding a column changes the schema only: existing blocks are not rewritten, and have no checksum.
_UPGRADE = (
    "DROP INDEX block_due",
    *_BLOCK_INDEXES,
    "ALTER TABLE progress ADD COLUMN next_due INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE progress ADD COLUMN unfinished INTEGER NOT NULL DEFAULT 0",
    _PROGRESS_INDEX,
    *(
        f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT {UNCHECKED}"
        for table in ("topic", "channel", "block", "progress")
    ),
    "UPDATE topic SET checksum = row_checksum(id, name, paused, held_from)",
    "UPDATE channel SET checksum = row_checksum(id, topic, name, paused, low, sent)",
    "UPDATE progress SET checksum = row_checksum(channel, seq, done, attempts, due, next_due, unfinished)",
)


class DamagedError(StartError):
    """The file is damaged. why: SQLite's error."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged ({why}); it was left as it is: move it away")
        self.why = why


def prepare(directory: Path) -> None:
    """Make a database in `directory`, if there is none. Raises StartError for a file that q-broker did not make."""
    path = directory / FILE
    _refuse_foreign(path)
    try:
        if not path.exists():
            make_database(path)
    except sqlite3.Error as error:
        raise StartError(f"cannot make {path}: {describe_error(error)}") from error
    except OSError as error:
        raise StartError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error


def open_database(directory: Path, sync: str, log_size: int = WAL) -> sqlite3.Connection:
    """Open the database in `directory`. Raises StartError, and DamagedError if it may be repaired.

    log_size: bytes of the write-ahead log, after which it is written back to the file.
    """
    path = directory / FILE
    try:
        connection = connect(path)
        _check(connection, path)
        _upgrade(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {SYNCS[sync]}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_size // _PAGE}")
        connection.execute(f"PRAGMA journal_size_limit = {2 * log_size}")
        connection.execute("BEGIN IMMEDIATE")  # fails now if the file cannot be written
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if (getattr(error, "sqlite_errorname", "") or "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise DamagedError(path, str(error)) from error
        raise StartError(f"cannot use {path}: {describe_error(error)}; it was left as it is") from error
    except OSError as error:
        raise StartError(f"cannot write {path}: {(error.strerror or str(error)).lower()}") from error
    return connection


def connect(path: Path, *, read_only: bool = False, is_cut: bool = False) -> sqlite3.Connection:
    """A connection that begins no transaction by itself, for use in one thread at a time.

    is_cut: the file may be shorter than its header says.
    """
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    if is_cut:
        connection.execute("PRAGMA writable_schema = ON")  # with this, SQLite reads such a file
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
    connection.execute("PRAGMA secure_delete = OFF")  # Debian's SQLite overwrites deleted rows with zeros by default
    if read_only:
        connection.execute("PRAGMA query_only = 1")
    return connection


def describe_error(error: sqlite3.Error) -> str:
    """What an SQLite error means, for a log line or an error message."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_FULL":
        return "the disk is full"
    if name.startswith("SQLITE_IOERR"):
        return f"disk I/O error ({name})"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return "it is damaged: a restart of q-broker copies what can be read"
    if name.startswith("SQLITE_READONLY"):
        return "it may not be written to"
    if name.startswith("SQLITE_CANTOPEN"):
        return "it cannot be opened"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return "another program has it locked"
    return str(error)


def _refuse_foreign(path: Path) -> None:
    """Raise StartError for a file that q-broker did not make."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except FileNotFoundError:
        _refuse_left_over(path)
        return
    except OSError as error:
        raise StartError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
    if not head:
        raise StartError(
            f"{path} is empty, and was not when it was made: something has cut it. It was left as it is:"
            " put a copy of it back, or remove it and what lies beside it to begin without messages"
        )
    if not head.startswith(_MAGIC):
        raise StartError(
            f"{path} is no database of q-broker, or is damaged at its beginning; it was left as it is:"
            " move it away, or choose another --data-path"
        )
    application = int.from_bytes(head[68:72], "big")
    if application not in (0, _APPLICATION) or (application == 0 and path.stat().st_size > _PAGE):
        raise StartError(f"{path} belongs to another program; it was left as it is: choose another --data-path")


def _refuse_left_over(path: Path) -> None:
    log = _beside(path, "-wal")
    if log.exists() and log.stat().st_size:
        raise StartError(f"{log} is there without {path.name}, which it belongs to; it was left as it is")


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def make_database(path: Path) -> None:
    """Make an empty database. It gets its name when it is complete, so that an empty file is never taken for one."""
    new = _beside(path, ".new")
    new.unlink(missing_ok=True)
    os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its other files the same mode
    connection = connect(new)
    try:
        _write_schema(connection)
    finally:
        connection.close()
    os.rename(new, path)
    held = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _write_schema(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA page_size = {_PAGE}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise StartError(f"{path} belongs to another program; it was left as it is: choose another --data-path")
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 1 <= version <= VERSION:
        raise StartError(f"{path} was made by a newer q-broker (format {version}, this one knows {VERSION})")


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    """Convert a file of the release before."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _UPGRADE:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back already
            connection.execute("ROLLBACK")
        raise
    log.info("%s: upgraded from format %d to %d; older versions of q-broker cannot read it", path, version, VERSION)
