"""One publish: its messages, and which of them are confirmed or refused. No I/O."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence

from qtools.attributes import Attributes
from qtools.errors import QtoolsError
from qtools.flow.contract import Refused

Groups = Sequence[tuple[str, Sequence[bytes]]]  # topic, bodies


class PublishCall:
    """A call of `publish` that runs. `done` completes when each message is confirmed or refused.

    first_id: the number in the message id of the first message; the others count up from it, so that what the broker
    returns is recognized.
    """

    __slots__ = ("_left", "_starts", "columns", "done", "first_id", "groups", "refused", "submitted_at")

    def __init__(
        self,
        groups: Groups,
        columns: Sequence[Attributes] | None,
        first_id: int,
        done: asyncio.Future[None],
        now: float,
    ) -> None:
        self.groups = groups
        self.columns = columns
        self.first_id = first_id
        self.done = done
        self.submitted_at = now  # loop time
        self.refused: Refused = {}
        self._starts: list[int] = []  # of the groups, counted in messages
        self._left = 0
        for _, bodies in groups:
            self._starts.append(self._left)
            self._left += len(bodies)

    @property
    def count(self) -> int:
        return self._starts[-1] + len(self.groups[-1][1]) if self._starts else 0

    def id_of(self, group: int, place: int) -> int:
        return self.first_id + self._starts[group] + place

    def place_of(self, number: int) -> tuple[int, int] | None:
        """The message whose id has this number; None if it is of another publish."""
        offset = number - self.first_id
        if not 0 <= offset < self.count:
            return None
        group = bisect_right(self._starts, offset) - 1
        return group, offset - self._starts[group]

    def refuse(self, group: int, places: Sequence[int], error: QtoolsError) -> None:
        """Messages that are not sent (again), and never confirmed."""
        for place in places:
            self.refused[group, place] = error
        self.settle(len(places))

    def settle(self, count: int) -> None:
        """As many messages are confirmed, or refused."""
        self._left -= count
        if self._left <= 0 and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: QtoolsError) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # mark it as retrieved: the caller may have been cancelled
