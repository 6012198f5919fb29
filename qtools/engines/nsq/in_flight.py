"""What is unfinished on a connection: messages in flight here, and publishes the broker has not answered. No I/O.

In: ids of messages that arrived, commands that were sent. Out: the ids to acknowledge, and a future that completes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.errors import QtoolsError

if TYPE_CHECKING:
    from qtools.engines.nsq.connection import Connection


class Delivery:
    """The messages of one read, and which of them are still in flight: the origin of its batch.

    Nearly always all of them are finished at once; then no single id is looked at.
    """

    __slots__ = ("_ids", "_some", "at", "connection", "left")

    def __init__(self, connection: Connection, ids: list[bytes], at: float) -> None:
        self.connection = connection
        self.left = len(ids)
        self.at = at  # loop time of arrival, or of the last touch
        self._ids = ids
        self._some: set[bytes] | None = None  # the ids in flight; None while all, or none, of `_ids` are

    @property
    def topic(self) -> str:
        return self.connection.topic

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def held(self) -> Sequence[bytes]:
        """The ids that are neither finished nor requeued."""
        if not self.left:
            return ()
        return self._ids if self._some is None else list(self._some)

    def finish(self, ids: Sequence[bytes]) -> None:
        self.connection.finish(self.take(ids), len(ids))

    def requeue(self, ids: Sequence[bytes], delay_ms: int) -> None:
        self.connection.requeue(self.take(ids), delay_ms)

    def touch(self, ids: Sequence[bytes]) -> None:
        held = set(self.held)
        self.connection.touch([ident for ident in ids if ident in held])

    def take(self, ids: Sequence[bytes]) -> Sequence[bytes]:
        """Return those of `ids` that are in flight, and no longer count them as in flight."""
        if self._some is None:
            if self.left and len(ids) == self.left:
                self.left = 0
                return ids
            self._some = set(self._ids) if self.left else set()
        ids = [ident for ident in ids if ident in self._some]
        self._some.difference_update(ids)
        self.left = len(self._some)
        return ids

    def drop(self) -> None:
        """Forget all ids: the connection is lost, and the broker delivers its messages again."""
        self.left = 0
        self._some = set()

    def __repr__(self) -> str:
        return repr(self.connection)


class PendingReplies:
    """The answers a broker has not given yet to one write: `done` completes with the last of `left` OKs."""

    __slots__ = ("done", "left")

    def __init__(self, done: asyncio.Future[None], left: int) -> None:
        self.done = done
        self.left = left

    def answered(self) -> None:
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: QtoolsError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # mark it as retrieved: the caller may have been cancelled
