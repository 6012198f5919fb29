"""The interfaces of the two ends of the loop: its source and its sink.

The loop acknowledges a batch only after the sink has returned, since the batch is safe then.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from qtools.attributes import Attributes
from qtools.errors import QtoolsError
from qtools.message import Batch

# Messages that were refused, by group of a publish and place in the group, and why each was.
Refused = dict[tuple[int, int], QtoolsError]


class GroupAttributes(Protocol):
    """What the messages of each group of a publish have besides their bodies; both are made when they are asked for,
    which takes longer than all other work on a message."""

    def __call__(self) -> Sequence[Attributes]:
        """Keys and headers. A publisher calls it only if its engine has them."""

    def variables(self, names: Collection[str]) -> Sequence[Sequence[Sequence[Any]]]:
        """A row for each message with the variables `names` of expressions (flow/variables.py)."""


class FlowSource(Protocol):
    """Where messages come from."""

    async def read(self) -> Batch | None:
        """Wait for the next batch; None at the end. Raises InputError for damaged input."""

    async def close(self) -> None:
        """Requeue the messages that were read and are not finished, and close. Called once, after the last read."""


class Sink(Protocol):
    """Where messages go."""

    async def write(self, batch: Batch) -> None:
        """Return when all messages of `batch` are safe: the sink answers for them, so that they may be finished. A sink
        that stores them only later has their origins commit no finished message before that
        (message.PartitionOrigin.commit_limit). A write that is cancelled ends soon, whatever it waits for.

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
