"""Which exchanges a publisher may publish to. In: topics. Out: None, or the error of their messages.

A message for an exchange that does not exist closes the channel, so each topic is looked for once before its first one.
"""

from __future__ import annotations

from qtools.engines.amqp.connection import AmqpConnection
from qtools.engines.amqp.settings import AmqpSettings
from qtools.engines.amqp.topology import count_ready, create_exchange, exchange_exists, no_exchange
from qtools.engines.contract import PublisherOptions
from qtools.errors import BrokerError, QtoolsError


class Exchanges:
    """The exchanges of one publisher."""

    def __init__(self, settings: AmqpSettings, options: PublisherOptions) -> None:
        self._settings = settings
        self._options = options
        self._known: set[str] = set()

    def is_known(self, topic: str) -> bool:
        return topic in self._known

    def forget(self, topic: str | None = None) -> None:
        """A topic may be gone; None: all of them."""
        if topic is None:
            self._known.clear()
        else:
            self._known.discard(topic)

    async def find(self, connection: AmqpConnection, topic: str) -> QtoolsError | None:
        """Look for the exchange of a topic, and create it if that was asked for. Returns why it cannot be used;
        ConnectionLost."""
        try:
            if self._settings.queue:
                if await count_ready(connection, self._settings.queue) is None:
                    where = f"the vhost {self._settings.vhost}"
                    return BrokerError("NOT_FOUND", f"there is no queue {self._settings.queue} in {where}")
            elif not await exchange_exists(connection, topic):
                if self._options.new_topics is None:
                    return self.missing(topic)
                await create_exchange(connection, topic, self._settings)
        except BrokerError as error:
            return error
        self._known.add(topic)
        return None

    def missing(self, topic: str) -> QtoolsError:
        return no_exchange(topic, self._settings, self.how_to_create())

    def how_to_create(self) -> str:
        flag = self._options.new_topics_flag
        return f"create it, or use {flag} default" if flag else "create it"
