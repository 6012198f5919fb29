"""What is open between a connection and a broker: messages held here, answers owed there. No socket, no wait.

In: what came, and what was sent. Out: the ids to acknowledge, and an end for who waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.errors import QtoolsError

if TYPE_CHECKING:
    from qtools.client.connection import Connection


class Arrival:
    """What came in one read, and what of it is still held: the origin of its messages.

    Nearly always all of it is finished at once, and then no message is looked at singly.
    """

    __slots__ = ("_ids", "_some", "at", "connection", "left")

    def __init__(self, connection: Connection, ids: list[bytes], at: float) -> None:
        self.connection = connection
        self.left = len(ids)
        self.at = at  # loop time of arrival, or of the last touch
        self._ids = ids
        self._some: set[bytes] | None = None  # what is held, once it is not all

    @property
    def topic(self) -> str:
        return self.connection.topic

    @property
    def address(self) -> str:
        return self.connection.address

    @property
    def held(self) -> Sequence[bytes]:
        """The ids that are neither finished nor given back."""
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
        """Those of `ids` that are held, and hold them no more."""
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
        """The connection is gone, and with it the right to finish anything."""
        self.left = 0
        self._some = set()

    def __repr__(self) -> str:
        return repr(self.connection)


class Answers:
    """What a broker still has to say to what was published: `done` ends with the last of `left` OKs."""

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
            self.done.exception()  # whoever waited may be gone; then nobody needs to hear of it
