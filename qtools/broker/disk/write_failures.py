"""What happens when a write fails, as on a full disk. In: errors of the database. Out: log messages, a reserve that is
given up and taken again, and the answer whether messages can be accepted again.

    the disk takes writes ──an error──▶ refused: the reserve is deleted ──a write works, and enough is free──▶ accepted
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path

from qtools.broker.disk.database import describe_error
from qtools.broker.disk.integrity.damage import Damage
from qtools.broker.disk.read_patience import DISK_FAILS, is_of_disk
from qtools.broker.disk.reserve import Journal, Sizes, allocate, free_bytes, in_megabytes
from qtools.broker.disk.transaction import Transaction

log = logging.getLogger("qtools.broker")

AGAIN = 1.0  # s between two tries when the disk refuses


class WriteFailures:
    """failure: why nothing can be written; "" when the disk takes writes. on_failure: called when that changes."""

    def __init__(self, directory: Path, damage: Damage) -> None:
        self.sizes = Sizes.of(directory)
        self.failure = ""
        self.on_failure: Callable[[str], None] = lambda why: None
        self._directory = directory
        self._damage = damage
        self._reserve = directory / "reserve"
        self._journal = Journal(directory, self.sizes.journal)
        self._make_room()

    def allocate(self) -> bool:
        """Take the space that is kept free for a full disk. Returns False, and logs a warning, when there is no
        room."""
        if self._journal.allocate() and self._keep_reserve():
            return True
        log.warning(
            "%s: there is no room for a reserve of %s: if the disk becomes full, messages that consumers finish then"
            " may be delivered again after a restart",
            self._directory,
            in_megabytes(self.sizes.reserve),
        )
        return False

    def allocate_again(self) -> bool:
        """Take that space if there is enough room for it now, and no write fails. Returns whether it is taken."""
        has_room = not self.failure and free_bytes(self._directory) >= self.sizes.enough
        return has_room and self._journal.allocate() and self._keep_reserve()

    def watch(self, on_failure: Callable[[str], None]) -> None:
        """Call `on_failure` when that changes; at once if nothing can be written now."""
        self.on_failure = on_failure
        if self.failure:
            on_failure(self.failure)

    def _make_room(self) -> None:
        """Before the database is opened: give up the reserve if the disk is full, because SQLite needs some space even
        to read. Messages are refused then, as after an error."""
        if free_bytes(self._directory) < self.sizes.log and self._reserve.exists():
            self.begin(self._full, is_full=True)

    def _keep_reserve(self) -> bool:
        return allocate(self._reserve, self.sizes.reserve)

    def replay(self, connection: sqlite3.Connection) -> None:
        """Write what consumers finished while the disk was full, before the last restart."""
        try:
            self._journal.replay(connection)
        except sqlite3.Error as error:
            log.debug("%s: %s", self._directory, describe_error(error))
            self._reserve.unlink(missing_ok=True)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._journal.replay(connection)

    # ── in the writer's thread ──

    def run(self, job: Transaction, connection: sqlite3.Connection, *, must_write: bool = False) -> bool:
        """Write `job`, as Transaction.run. What consumers have finished goes to the journal if the database fails."""
        try:
            more = job.run(connection, must_write=must_write)
        except sqlite3.Error as error:
            self._note_failed(job, error)
            raise
        self._journal.clear()
        return more

    def probe(self, job: Transaction, connection: sqlite3.Connection) -> bool:
        """Try to write `job` while the disk refuses; it is written to the file even if it is empty."""
        try:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            self._note_failed(job, error)
            raise
        return self.run(job, connection, must_write=True)

    def _note_failed(self, job: Transaction, error: sqlite3.Error) -> None:
        """Keep what consumers have finished. Raises OSError if the disk is away, and SQLite takes that for damage."""
        self._journal.note(job.before + job.after)
        if is_of_disk(error, self._directory):
            raise OSError(DISK_FAILS) from error

    # ── in the event loop ──

    def reason(self, error: Exception) -> str:
        """Why a write failed, for people. Damage is reported."""
        if isinstance(error, OSError):
            return error.strerror or str(error)
        if not isinstance(error, sqlite3.Error):
            log.error("internal error while writing: %s: %s", type(error).__name__, error)
            return str(error)
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_CORRUPT"):
            self._damage.report_structure(str(error))
        if name == "SQLITE_FULL":
            return self._full
        return describe_error(error)

    @property
    def _full(self) -> str:
        return f"the disk is full: {in_megabytes(self.sizes.enough)} have to be free in {self._directory}"

    def begin(self, why: str, *, is_full: bool) -> None:
        """Note that the disk refuses writes, and delete the reserve."""
        if self.failure != why:
            self.failure = why
            log.error(
                "cannot write to %s: %s; publishing is refused until the directory can be written to, consumers are"
                " still served",
                self._directory,
                f"{why} ({in_megabytes(free_bytes(self._directory))} are)" if is_full else why,
            )
            self.on_failure(why)
        with contextlib.suppress(OSError):
            self._reserve.unlink()

    def try_to_end(self) -> bool:
        """After a write that worked: whether messages are accepted again, because enough of the disk is free."""
        if free_bytes(self._directory) < self.sizes.enough or not self._keep_reserve():
            return False
        self.failure = ""
        log.warning("%s can be written to again", self._directory)
        self.on_failure("")
        return True
