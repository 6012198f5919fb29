"""Creates, empties, pauses and deletes topics and channels, with engines that have the capability. In: an engine, and
names."""

from __future__ import annotations

from typing import Protocol, cast

from qtools.engines.contract import Engine, NewTopics


class AdministeredEngine(Engine, Protocol):
    """An engine with the capabilities `creation`, `emptying`, `pause` and `deletion`, or some of them. Each method
    raises StartError, NetworkError or PeerError if it is not known to be done, TopicMissing where there is no such
    topic."""

    async def create(self, topic: str, channel: str = "", new: NewTopics | None = None) -> bool:
        """Create `topic`, and its `channel`; return whether something was created. UsageError if this engine does not
        create channels."""

    async def empty(self, topic: str, channel: str = "") -> None:
        """Drop what waits in `channel`, or in `topic`, which is what no channel has got yet, or all that it keeps."""

    async def pause(self, topic: str, channel: str, paused: bool) -> None:
        """Pause or resume `channel`, or, if it is "", the topic."""

    async def delete(self, topic: str, channel: str = "") -> None:
        """Delete `topic` with its messages, or only its `channel`; nothing happens if it does not exist."""


def administered(engine: Engine) -> AdministeredEngine:
    """`engine`, which has the capability for what will be called (engines/requirements.py)."""
    return cast("AdministeredEngine", engine)


async def delete(engine: Engine, topic: str, channel: str = "") -> None:
    """Delete `topic` of `engine`, or only its `channel`. Errors as for AdministeredEngine; never TopicMissing."""
    assert engine.capabilities.deletion
    await administered(engine).delete(topic, channel)
