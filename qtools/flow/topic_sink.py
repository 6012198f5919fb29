"""A Sink that publishes each batch to one topic. In: batches. Out: calls of a publisher."""

from __future__ import annotations

from qtools.errors import PartialFailure
from qtools.flow.contract import GroupPublisher
from qtools.flow.publish import publish_groups
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
