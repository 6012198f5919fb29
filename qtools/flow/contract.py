"""The interfaces of the two ends of the loop: its source and its sink.

The loop acknowledges a batch only after the sink has returned, since the batch is safe then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qtools.attributes import Attributes
from qtools.errors import QtoolsError
from qtools.message import Batch

# Messages that were refused, by group of a publish and place in the group, and why each was.
Refused = dict[tuple[int, int], QtoolsError]

# Returns the attributes of the messages of each group of a publish. A publisher calls it only if its engine has keys
# and headers: making them takes longer than all other work on a message.
GroupAttributes = Callable[[], Sequence[Attributes]]


class FlowSource(Protocol):
    """Where messages come from."""

    async def read(self) -> Batch | None:
        """Wait for the next batch; None at the end. Raises InputError for damaged input."""

    async def close(self) -> None:
        """Requeue the messages that were read and are not finished, and close. Called once, after the last read."""


class Sink(Protocol):
    """Where messages go."""

    async def write(self, batch: Batch) -> None:
        """Return when all messages of `batch` are safe. A write that is cancelled ends soon, whatever it waits for.

        Raises PartialFailure if some messages failed and all others are safe; SinkClosed if the reader of the sink's
        output has gone; another SinkError if only the first `taken` messages are safe; another QtoolsError if no
        message is known to be safe.
        """

    async def close(self) -> None:
        """Close the sink. Called once, after the last write has returned."""


class GroupPublisher(Protocol):
    """Publishes messages to several topics at once."""

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        """Publish all of `groups`, (topic, bodies) each; return the refused messages when all others are safe."""

    async def close(self) -> None: ...


def attributes_of(
    batch: Batch, groups: Sequence[Sequence[int]], instead: Attributes | None = None
) -> GroupAttributes | None:
    """The attributes of groups of a batch's messages, each given by their places in it; None if they have none.

    instead: keys and headers that replace those of the batch's messages.
    """
    if not batch.has_attributes and instead is None:
        return None

    def pick() -> Sequence[Attributes]:
        found, all_places = batch.attributes() or Attributes(), range(len(batch))
        if instead is not None:
            found = found._replace(keys=instead.keys, headers=instead.headers)
        return [found if places == all_places else found.pick(places) for places in groups]

    return pick
