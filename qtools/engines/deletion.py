"""Deletes topics and channels, with engines that have the capability `deletion`. In: an engine, and names."""

from __future__ import annotations

from typing import Protocol, cast

from qtools.engines.contract import Engine


class DeletingEngine(Engine, Protocol):
    """An engine with the capability `deletion`."""

    async def delete(self, topic: str, channel: str = "") -> None:
        """Delete `topic` with its messages, or only its `channel`; nothing happens if it does not exist.

        Raises StartError, NetworkError or PeerError if it may still exist.
        """


async def delete(engine: Engine, topic: str, channel: str = "") -> None:
    """Delete `topic` of `engine`, or only its `channel`. Errors as for DeletingEngine."""
    assert engine.capabilities.deletion
    await cast("DeletingEngine", engine).delete(topic, channel)
