"""Which keys were seen before: a bounded number, stored on disk. In: the keys of a batch, and the time. Out: a verdict
for each key.

    check_and_reserve ─▶ NEW         send the message; then `commit` its key if the message is safe, else `release` it
                         DUPLICATE   a message with the same key is safe: this one may be acknowledged
                         PENDING     a message with the same key is being sent, and may still fail

A key is first reserved, in memory only, and written when the destination has confirmed its message. So a crash between
the two sends the message twice rather than never. A message whose verdict is PENDING may be neither sent nor
acknowledged: when the first message with its key is committed, it is a duplicate; when that is released, it has to be
requeued.

On disk: an SQLite file with a row for each commit, in the order of the commits; 16 bytes a key.

    about     salt | crc
    commits   seq | at, s since 1970 | crc of the row | hashes: BLAKE2b of key with salt, 16 bytes each

In memory: 65,536 byte strings. The first two bytes of a hash select the string, which contains the other 14 bytes. With
10 million keys a lookup is a search in 2 kB, which `bytearray.find` does in a microsecond. A set of the keys would take
1.2 GB, and a B-tree on disk would write a page for each key. Each string is in the order of the commits, and keys
expire in that order, so an expired hash is removed from the front.

Times never decrease from row to row, and none is later than the present. Otherwise one commit that was made while the
clock was ahead would keep all later rows from expiring, and their messages would be discarded for that long. A time
that is later than the present, or than the time of a later row, is lowered to it, in the file too. Such a key is then
kept for one more window from the moment this is noticed, and not again from each start. (Dropping these keys instead
would send everything twice after a start at which the clock is a second behind.)

A new key has by chance the hash of one of 10 million others once in 3 · 10³¹, and its message would be taken for a
duplicate. That any two of 10 million keys have the same hash: once in 7 · 10²⁴ (n²/2¹²⁹).

Durability: when a commit returns, the operating system has the data, so killing the process loses nothing. SQLite syncs
its WAL at a checkpoint, every 4 MB: a power failure may lose the last commits (at most 250,000 keys), and their
messages may be sent twice. This module has no clock, and waits only for the disk: call it in a thread, one call at a
time. Opening a file takes 0.7 s for each million keys in it.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from hashlib import blake2b
from pathlib import Path
from struct import Struct

from qtools.errors import SinkError, StartError
from qtools.hard_links import move_to_new_name

_ID = 0x71646570  # "qdep", SQLite's application_id
_VERSION = 1
_HASH = Struct(">H14s")
_REST = 14  # bytes of a hash behind the two that select its string
_ROW = Struct(">qd")
_PLACES = 65536
# Most hashes in a row: keys are evicted by whole rows, so a row is a small part of all keys.
_MOST_IN_ROW = 4096
_ROWS_AT_ONCE = 64  # read ahead when rows expire

# SQLite's errors whose cause is not the content of the file.
_ENVIRONMENT_ERRORS = (
    "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_NOMEM",
)  # fmt: skip

_SCHEMA = f"""
PRAGMA application_id = {_ID};
PRAGMA user_version = {_VERSION};
CREATE TABLE about (salt BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE commits (seq INTEGER PRIMARY KEY, at REAL NOT NULL, crc INTEGER NOT NULL, hashes BLOB NOT NULL);
"""


class Verdict(Enum):
    """What to do with a message, by its key."""

    NEW = "new"
    DUPLICATE = "duplicate"
    PENDING = "pending"


NEW, DUPLICATE, PENDING = Verdict.NEW, Verdict.DUPLICATE, Verdict.PENDING


def holds(string: bytearray, rest: bytes) -> bool:
    """Whether `rest` is one of the entries of `string`, each of which has _REST bytes."""
    at = string.find(rest)
    while at > 0 and at % _REST:  # a match across two entries
        at = string.find(rest, at + 1)
    return at >= 0


class Dedupe:
    """The keys committed within `window` s, at most `max_keys` of them: the oldest are evicted for new ones.

    path: created if it does not exist, readable only by its owner. StartError when another process uses it, when it is
    damaged, or when it is another kind of file: such a file is never taken for empty, as everything would be sent
    twice. size, duplicates, pending, expired, evicted: counts of keys. Memory: 19 bytes a key; disk: 17, and some MB.
    """

    def __init__(self, path: Path, *, window: float, max_keys: int) -> None:
        if window <= 0 or max_keys < 1:
            raise ValueError("window and max_keys are above 0")
        self.path = path
        self.size = 0
        self.duplicates = 0
        self.pending = 0
        self.expired = 0
        self.evicted = 0
        self._window = window
        self._max_keys = max_keys
        self._row_size = max(1, min(_MOST_IN_ROW, max_keys // 16))
        self._reserved: dict[bytes, bytes] = {}  # key → hash
        self._strings = [bytearray() for _ in range(_PLACES)]
        self._last = 0  # seq of the newest row
        self._gone = 0  # rows up to this seq are forgotten in memory, and deleted with the next commit
        self._latest = float("-inf")  # the highest `at` of any row
        self._is_ordered = True  # whether no row has an `at` below that of an earlier one
        self._heads: deque[tuple[int, float, bytes]] = deque()  # the oldest rows, read ahead
        self._base, self._salt = _open(path)
        try:
            with self._reading():
                self._load()
        except BaseException:
            self._base.close()
            raise

    @property
    def reserved(self) -> int:
        """The number of keys that are reserved: neither committed nor released."""
        return len(self._reserved)

    def check_and_reserve(self, keys: Sequence[bytes], now: float) -> list[Verdict]:
        """A verdict for each of `keys`, in order; those that are NEW are reserved from now on.

        Of equal keys in one batch the first may be NEW, and the others are PENDING. `now` in s since 1970, by the same
        clock as for `commit`. SinkError when the clock was set back and the lowered times cannot be written.
        """
        self._lower_times(now)
        self._expire(now)
        reserved, strings, salt, unpack = self._reserved, self._strings, self._salt, _HASH.unpack
        verdicts: list[Verdict] = []
        for key in keys:
            if key in reserved:
                verdicts.append(PENDING)
                continue
            digest = blake2b(key, digest_size=16, salt=salt).digest()
            place, rest = unpack(digest)
            if holds(strings[place], rest):
                verdicts.append(DUPLICATE)
            else:
                reserved[key] = digest
                verdicts.append(NEW)
        self.duplicates += verdicts.count(DUPLICATE)
        self.pending += verdicts.count(PENDING)
        return verdicts

    def commit(self, keys: Sequence[bytes], now: float) -> None:
        """Remember `keys`, which were NEW and whose messages are safe.

        SinkError when they cannot be written: then nothing has changed, and they are still reserved.
        ValueError for a key that is not reserved.
        """
        reserved = self._reserved
        try:
            hashes = [reserved[key] for key in dict.fromkeys(keys)]
        except KeyError as error:
            raise ValueError(f"{error.args[0]!r} was not reserved") from None
        self._lower_times(now)
        surplus = max(0, len(hashes) - self._max_keys)
        hashes = hashes[surplus:]
        with self._reading():
            self._make_room(len(hashes))
        joined = b"".join(hashes)
        self._write(joined, now)
        for key in keys:
            reserved.pop(key, None)
        self.evicted += surplus
        self._learn(joined)

    def release(self, keys: Sequence[bytes]) -> None:
        """Drop the reservation of `keys`: their messages did not arrive, and may be delivered again."""
        for key in keys:
            self._reserved.pop(key, None)

    def close(self) -> None:
        """Close the file. Reservations are dropped; committed keys stay."""
        with suppress(sqlite3.Error):  # rows that are not deleted now are deleted by the next run
            self._delete_gone()
            self._base.commit()
        self._base.close()

    # ── the keys in memory ──

    def _learn(self, joined: bytes) -> None:
        strings = self._strings
        for place, rest in _HASH.iter_unpack(joined):
            strings[place] += rest
        self.size += len(joined) // 16

    def _load(self) -> None:
        """Read all rows, and check them for damage."""
        expected: int | None = None
        for seq, at, crc, hashes in self._base.execute("SELECT seq, at, crc, hashes FROM commits ORDER BY seq"):
            if expected is None:
                self._gone = seq - 1
            elif seq != expected:
                raise sqlite3.DatabaseError(f"row {expected} is missing")
            if not isinstance(hashes, bytes) or not isinstance(at, float) or len(hashes) % 16 or not hashes:
                raise sqlite3.DatabaseError(f"row {seq} has no hashes")
            if crc != _crc(seq, at, hashes):
                raise sqlite3.DatabaseError(f"row {seq} has another checksum")
            expected = seq + 1
            self._is_ordered = self._is_ordered and at >= self._latest
            self._last, self._latest = seq, max(self._latest, at)
            self._learn(hashes)
        self._make_room(0)

    def _lower_times(self, now: float) -> None:
        """Lower the time of every row to `now` and to the times of all later rows, if one is higher."""
        if self._is_ordered and self._latest <= now:
            return
        bound, below = now, self._last + 1
        query = "SELECT seq, at, hashes FROM commits WHERE seq > ? AND seq < ? ORDER BY seq DESC LIMIT ?"
        try:
            while rows := self._base.execute(query, (self._gone, below, _ROWS_AT_ONCE)).fetchall():
                lowered = []
                for seq, at, hashes in rows:
                    if at > bound:
                        lowered.append((bound, _crc(seq, bound, hashes), seq))
                    bound, below = min(bound, at), seq
                self._base.executemany("UPDATE commits SET at = ?, crc = ? WHERE seq = ?", lowered)
            self._base.commit()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._base.rollback()
            raise SinkError(f"cannot correct the times of keys in {self.path}: {error}") from error
        self._heads.clear()
        self._latest = min(self._latest, now)
        self._is_ordered = True

    def _expire(self, now: float) -> None:
        """Forget the keys that were committed `window` s ago or earlier."""
        before = now - self._window
        if not self.size:
            return
        if self._latest <= before:
            self.expired += self.size
            self.size = 0
            self._strings = [bytearray() for _ in range(_PLACES)]
            self._gone = self._last
            self._heads.clear()
            return
        with self._reading():
            while self.size and (head := self._head())[1] <= before:
                self.expired += self._forget(head)

    def _make_room(self, count: int) -> None:
        """Forget the oldest rows until there is room for `count` more keys."""
        while self.size and self.size + count > self._max_keys:
            self.evicted += self._forget(self._head())

    def _head(self) -> tuple[int, float, bytes]:
        """The oldest row that is not forgotten. There has to be one."""
        if not self._heads:
            query = "SELECT seq, at, hashes FROM commits WHERE seq > ? ORDER BY seq LIMIT ?"
            self._heads.extend(self._base.execute(query, (self._gone, _ROWS_AT_ONCE)))
        return self._heads[0]

    def _forget(self, head: tuple[int, float, bytes]) -> int:
        """Forget the oldest row, and return how many keys it had."""
        strings = self._strings
        for place, _ in _HASH.iter_unpack(head[2]):
            del strings[place][:_REST]
        self._heads.popleft()
        self._gone = head[0]
        count = len(head[2]) // 16
        self.size -= count
        return count

    # ── the file ──

    def _write(self, joined: bytes, now: float) -> None:
        rows = []
        step = self._row_size * 16
        for seq, start in enumerate(range(0, len(joined), step), self._last + 1):
            hashes = joined[start : start + step]
            rows.append((seq, now, _crc(seq, now, hashes), hashes))
        try:
            self._delete_gone()
            self._base.executemany("INSERT INTO commits VALUES (?, ?, ?, ?)", rows)
            self._base.commit()
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._base.rollback()
            raise SinkError(f"cannot remember keys in {self.path}: {error}") from error
        self._last += len(rows)
        self._latest = max(self._latest, now)

    def _delete_gone(self) -> None:
        self._base.execute("DELETE FROM commits WHERE seq <= ?", (self._gone,))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from error

    def __repr__(self) -> str:
        return f"<Dedupe {self.path} size={self.size} reserved={self.reserved}>"


def _crc(seq: int, at: float, hashes: bytes) -> int:
    return zlib.crc32(hashes, zlib.crc32(_ROW.pack(seq, at)))


def _damaged(path: Path, error: Exception | str) -> StartError:
    return StartError(
        f"{path} is damaged ({error}): move it away to begin without keys; then duplicates of earlier messages are sent"
    )


def _open(path: Path) -> tuple[sqlite3.Connection, bytes]:
    """Open the file and lock it; returns the connection and the salt."""
    try:
        if not path.exists():
            _make(path)
        if not path.is_file():
            raise StartError(f"{path} is not a regular file: name a file for the keys")
        if not path.stat().st_size:  # SQLite would take it for a new one
            raise _damaged(path, "it is empty")
        base = _connect(path)
    except OSError as error:
        raise StartError(f"cannot use {path}: {error.strerror or error}") from error
    except sqlite3.Error as error:
        raise StartError(f"cannot use {path}: {error}") from error
    try:
        # The lock is held until the connection is closed, also between transactions; a killed process loses it.
        base.execute("PRAGMA locking_mode = EXCLUSIVE")
        base.execute("BEGIN EXCLUSIVE")
        base.execute("COMMIT")
        if _number(base, "application_id") != _ID:
            raise StartError(f"{path} is not a file of keys of --dedupe: name another file")
        if _number(base, "user_version") != _VERSION:
            raise StartError(f"{path} was written by a newer version of qtools")
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")
        # If a page lost its first or last rows, only this check of the unused space finds it.
        for (found,) in base.execute("PRAGMA quick_check(1)"):
            if found != "ok":
                raise sqlite3.DatabaseError(" ".join(str(found).split()))
        about = base.execute("SELECT salt, crc FROM about").fetchall()
        salt, crc = about[0] if len(about) == 1 else (None, 0)
        if not isinstance(salt, bytes) or len(salt) != 16 or zlib.crc32(salt) != crc:
            raise sqlite3.DatabaseError("its salt is lost")
        return base, salt
    except sqlite3.Error as error:
        base.close()
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_BUSY"):
            raise StartError(f"{path} is in use by another process: give each process its own file") from error
        if name.startswith(_ENVIRONMENT_ERRORS):
            raise StartError(f"cannot use {path}: {error}") from error
        raise _damaged(path, error) from error
    except BaseException:
        base.close()
        raise


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, check_same_thread=False)


def _number(base: sqlite3.Connection, name: str) -> int:
    value: int = base.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _make(path: Path) -> None:
    """Create a new file. It gets its name when it is complete, as an empty file of that name counts as damaged."""
    fresh = path.with_name(f"{path.name}.{os.urandom(4).hex()}.new")
    os.close(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        base = _connect(fresh)
        base.executescript(_SCHEMA)
        salt = os.urandom(16)
        base.execute("INSERT INTO about VALUES (?, ?)", (salt, zlib.crc32(salt)))
        base.commit()
        base.close()
        with suppress(FileExistsError):  # another process was faster, and has the lock
            move_to_new_name(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
