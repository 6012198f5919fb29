"""Opens the database when the broker starts, and repairs it if it is damaged. In: a data directory. Out: a connection.

A file of up to CHECK_WHOLE bytes is checked completely before anything is written to it; a larger one too, if damage
was found in it before. Of other larger files only the tables of topics and channels are checked, so that the start does
not take minutes, and the rest while the broker runs (`check_later`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
from pathlib import Path

from qtools.broker.disk.database import FILE, DamagedError, connect, describe_error, open_database, prepare
from qtools.broker.disk.database_thread import DatabaseThread
from qtools.broker.disk.integrity.check import count_rows, find_damage
from qtools.broker.disk.integrity.damage import DIRECTORY, Damage
from qtools.broker.disk.integrity.repair import repair
from qtools.broker.disk.integrity.wal import damage_of_log
from qtools.errors import StartError

log = logging.getLogger("qtools.broker")

MOST_ROWS = 50_000  # of a table of which the checksums are compared before the broker starts; takes some 200 ms
CHECK_WHOLE = 256 * 1024 * 1024  # bytes: takes 50 ms when the system has cached them, and 2.5 s from a slow disk


def open_sound(directory: Path, sync: str, log_size: int, damage: Damage) -> sqlite3.Connection:
    """Open the database in `directory`, made if there is none. Raises StartError."""
    prepare(directory)
    path = directory / FILE
    is_suspect = (directory / DIRECTORY).is_dir()
    connection = None
    try:
        is_suspect |= _look_at_log(path, damage)
        connection = open_database(directory, sync, log_size)
        whole = is_suspect or os.path.getsize(path) <= CHECK_WHOLE
        why = find_damage(connection, whole=whole, most_rows=None if is_suspect else MOST_ROWS)
    except DamagedError as error:
        why = error.why
    except sqlite3.Error as error:
        raise StartError(f"cannot use {path}: {describe_error(error)}; it was left as it is") from error
    if why:
        if connection is not None:
            connection.close()
        try:
            repair(directory, why, damage)
        except (sqlite3.Error, OSError) as error:
            reason = (
                describe_error(error) if isinstance(error, sqlite3.Error) else (error.strerror or str(error)).lower()
            )
            raise StartError(
                f"{path} is damaged ({why}), and what can be read of it cannot be copied: {reason}; it was left as it"
                f" is: make room for a copy ({path.stat().st_size / 1e6:.0f} MB), or move it away and begin without"
                " messages"
            ) from error
        connection = open_database(directory, sync, log_size)
    assert connection is not None
    return connection


def _look_at_log(path: Path, damage: Damage) -> bool:
    """Whether damage to the write-ahead log loses transactions. A copy of the log is kept then."""
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return False
    connection = connect(path)
    try:
        _, valid, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        why = damage_of_log(wal, max(valid, 0))
        if why:
            damage.report_log(f"{wal.name}: {why}: what was confirmed last may be missing, in any topic")
            shutil.copyfile(wal, path.parent / DIRECTORY / f"{wal.name}-{os.stat(wal).st_mtime_ns}")
        return bool(why)
    except sqlite3.Error as error:
        log.debug("%s: %s", wal, error)
        return True
    except OSError as error:
        log.error("cannot keep a copy of %s: %s", wal, (error.strerror or str(error)).lower())
        return True
    finally:
        connection.close()


class Checker:
    """Checks a large database while the broker runs, and reports damage."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop, damage: Damage) -> None:
        self._connection = connect(directory / FILE, read_only=True)
        self._worker = DatabaseThread("q-broker checker", self._connection, loop)
        self._damage = damage
        self.is_done = False
        self._worker.do(lambda connection: find_damage(connection, whole=True), self._found)

    def _found(self, why: str | None, error: Exception | None) -> None:
        self.is_done = True
        if why:
            self._damage.report_structure(why)
        elif error is not None:
            log.warning("the database could not be checked: %s", error)

    def close(self) -> None:
        self._connection.interrupt()
        self._worker.close()


def check_later(directory: Path, loop: asyncio.AbstractEventLoop, damage: Damage) -> Checker | None:
    """Check a database that was too large to be checked completely before the start."""
    if os.path.getsize(directory / FILE) <= CHECK_WHOLE:
        connection = connect(directory / FILE, read_only=True)
        try:
            if count_rows(connection, "progress") <= MOST_ROWS:
                return None
        finally:
            connection.close()
    return Checker(directory, loop, damage)
