"""Warns once that keys and headers of messages are lost, as the destination has none. In: batches. Out: a log line."""

from __future__ import annotations

import logging

from qtools.engines.capabilities import Capabilities
from qtools.message import Batch

logger = logging.getLogger("qtools.bridge")

LOOKED_AT = 10_000  # messages; of later batches only the first message, as making keys and headers takes time


class LostAttributes:
    """Looks at batches on their way to an engine with the capabilities `to`."""

    def __init__(self, to: Capabilities) -> None:
        self._engine = to.engine
        self._seen = 0
        self._has_warned = False

    def look(self, batch: Batch) -> None:
        """Log a warning if a message of `batch` has a key or a header, and none was logged before."""
        if self._has_warned or not len(batch):
            return
        some = batch if self._seen < LOOKED_AT else batch.pick([0])
        self._seen += len(batch)
        found = some.attributes(("keys", "headers"))
        if found is None:
            return
        if any(key is not None for key in found.keys or ()) or any(found.headers or ()):
            self._has_warned = True
            logger.warning("%s has no keys and no headers: those of the messages are left out", self._engine)


def lost_attributes(source: Capabilities, to: Capabilities) -> LostAttributes | None:
    """What looks at batches from an engine with the capabilities `source`; None if nothing is lost."""
    return LostAttributes(to) if source.keys_and_headers and not to.keys_and_headers else None
