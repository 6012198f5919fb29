"""Opens the database when the broker starts, and repairs it if it is damaged. In: a data directory. Out: a connection.

A file of up to CHECK_WHOLE bytes is checked completely before anything is written to it; a larger one too, if damage
was found in it before. Of other larger files only the tables of topics and channels are checked, so that the start does
not take minutes, and the rest while the broker runs (`check_later`).
"""

from __future__ import annotations

import asyncio
import contextlib
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
    """Whether damage to the write-ahead log loses transactions, or it cannot be used. A copy of a damaged log is kept.

    Raises StartError when no copy can be made; the log is then left as it is.
    """
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return False
    connection = connect(path)
    try:
        valid: int | None
        try:
            _, valid, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            valid = max(valid, 0)
        except sqlite3.Error as error:  # the database is damaged too, or there is no room to write the log back
            log.debug("%s: %s", wal, error)
            valid = None
        why = damage_of_log(wal, valid)
        if why:
            try:
                _keep_copy(wal)
            except OSError as error:
                raise StartError(
                    f"{wal} is damaged ({why}), and a copy of it cannot be kept:"
                    f" {(error.strerror or str(error)).lower()}; it was left as it is: make room for a copy"
                    f" ({wal.stat().st_size / 1e6:.0f} MB)"
                ) from error
            damage.report_log(f"{wal.name}: {why}: what was confirmed last may be missing, in any topic")
        return bool(why) or valid is None
    except (StartError, OSError) as error:
        # When SQLite closes the last connection it deletes the log that it finds under this name.
        aside = wal.with_name(f"{wal.name}.aside")
        wal.rename(aside)
        connection.close()
        aside.rename(wal)
        if isinstance(error, StartError):
            raise
        raise StartError(f"cannot read {wal}: {(error.strerror or str(error)).lower()}") from error
    finally:
        connection.close()


def _keep_copy(wal: Path) -> None:
    """Copy the log into the directory of the report. Raises OSError, and leaves no half copy."""
    directory = wal.parent / DIRECTORY
    directory.mkdir(mode=0o700, exist_ok=True)
    kept = directory / f"{wal.name}-{os.stat(wal).st_mtime_ns}"
    try:
        shutil.copyfile(wal, kept)
    except OSError:
        kept.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it may have the report of an earlier start
            directory.rmdir()
        raise


class Checker:
    """Checks a large database while the broker runs, and reports damage."""

    def __init__(self, directory: Path, loop: asyncio.AbstractEventLoop, damage: Damage) -> None:
        self._connection = connect(directory / FILE, read_only=True)
        self._worker = DatabaseThread("q-broker checker", self._connection, loop)
        self._damage = damage
        self.is_done = False
        self._is_closed = False
        self._worker.do(self._check, self._found)

    def _check(self, connection: sqlite3.Connection) -> str:
        return "" if self._is_closed else find_damage(connection, whole=True)

    def _found(self, why: str | None, error: Exception | None) -> None:
        self.is_done = True
        if why:
            self._damage.report_structure(why)
        elif error is not None and not self._is_closed:
            log.warning("the database could not be checked: %s", error)

    def close(self) -> None:
        self._is_closed = True
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
