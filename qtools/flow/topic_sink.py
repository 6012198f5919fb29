"""A Sink that publishes each batch to one topic. In: batches. Out: calls of a publisher."""

from __future__ import annotations

from qtools.errors import MessageRefused, PartialFailure
from qtools.flow.contract import GroupPublisher, attributes_of
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
        attributes = attributes_of(batch, [range(len(batch))])
        refused = await self._publisher.publish([(self._topic, batch.bodies)], attributes=attributes)
        if refused:
            for error in refused.values():
                if not isinstance(error, MessageRefused):
                    raise error
            raise PartialFailure({place: refused[group, place] for group, place in sorted(refused)})

    async def close(self) -> None:
        await self._publisher.close()
