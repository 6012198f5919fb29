"""A Sink that publishes each batch to one topic; one publish of several groups, which sinks with routes use too.

In: batches. Out: calls of a publisher, and which messages of the batch were refused.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from typing import Any, NamedTuple

from qtools.attributes import Attributes
from qtools.errors import MessageRefused, PartialFailure, QtoolsError
from qtools.flow.contract import GroupPublisher
from qtools.message import Batch


class TopicSink:
    """Publishes to `topic` through `publisher`, which it closes."""

    def __init__(self, publisher: GroupPublisher, topic: str) -> None:
        self._publisher = publisher
        self._topic = topic

    async def write(self, batch: Batch) -> None:
        """Publish all of `batch`, and return when it is safe.

        PartialFailure names the messages that no broker takes, with MessageRefused for each. BrokerError when a broker
        refuses the topic, or everything for too long; NetworkError when no broker was reachable in time.
        """
        places = range(len(batch))
        refused = await publish_groups(self._publisher, [(self._topic, batch.bodies)], [places], batch=batch)
        if refused:
            raise PartialFailure({place: copy.error for place, copy in refused.items()})

    async def close(self) -> None:
        await self._publisher.close()


class BatchAttributes:
    """GroupAttributes of groups of a batch's messages, each given by their places in it.

    instead: keys and headers that replace those of the batch's messages.
    """

    def __init__(self, batch: Batch, groups: Sequence[Sequence[int]], instead: Attributes | None = None) -> None:
        self._batch = batch
        self._groups = groups
        self._instead = instead

    def __call__(self) -> Sequence[Attributes]:
        found, all_places = self._batch.attributes() or Attributes(), range(len(self._batch))
        if self._instead is not None:
            found = found._replace(keys=self._instead.keys, headers=self._instead.headers)
        return [found if places == all_places else found.pick(places) for places in self._groups]

    def variables(self, names: Collection[str]) -> Sequence[Sequence[Sequence[Any]]]:
        from qtools.flow.variables import rows_of  # few publishers evaluate expressions

        rows = rows_of(self._batch, names, self._instead)
        return [[rows[place] for place in places] for places in self._groups]


class RefusedCopy(NamedTuple):
    """Why a broker refused the copy of a message for `topic`."""

    topic: str
    error: QtoolsError


async def publish_groups(
    publisher: GroupPublisher,
    groups: Sequence[tuple[str, Sequence[bytes]]],
    places: Sequence[Sequence[int]],
    *,
    batch: Batch | None = None,
    attributes: Attributes | None = None,
    fixed: Container[str] | None = None,
) -> dict[int, RefusedCopy]:
    """Publish all of `groups`, (topic, bodies) each, and return when all but the refused messages are safe.

    places: for each group, the places of its messages in the batch. The result holds the refused messages by place, in
    the order of the batch; of a message with several refused copies it holds the first.

    batch: the batch, whose keys and headers are published with the bodies; None to publish bodies only. attributes:
    keys and headers of its messages that are published instead.

    fixed: the topics that do not depend on a message; None for all. If a broker refuses such a topic, and not only a
    message, the error is raised. Any other topic was chosen by its messages, and these are refused.
    """
    made = BatchAttributes(batch, places, attributes) if batch is not None else None
    refused = await publisher.publish(groups, attributes=made)
    if not refused:
        return {}
    copies: dict[int, RefusedCopy] = {}
    for (group, nth), error in refused.items():
        topic = groups[group][0]
        if not isinstance(error, MessageRefused) and (fixed is None or topic in fixed):
            raise error
        copies.setdefault(places[group][nth], RefusedCopy(topic, error))
    return dict(sorted(copies.items()))
