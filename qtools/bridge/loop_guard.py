"""Refuses a bridge that would feed itself. In: where it reads and writes. Out: the topics it must not write to."""

from __future__ import annotations

from qtools.bridge.options import BridgeOptions
from qtools.errors import NameInvalid, UsageError
from qtools.routing.dead_letter import dead_letter_topic


async def forbidden_topics(options: BridgeOptions) -> frozenset[str]:
    """The topics that are read, if the destination is the cluster that they are read from; otherwise no topic."""
    if options.to_engine is not None:
        here, there = await options.engine.identity(), await options.to_engine.identity()
        if not here & there:
            return frozenset()
    return frozenset(source.topic for source in options.sources)


def dead_letter_topics(options: BridgeOptions) -> dict[str, str]:
    """topic that is read → topic for its dead letters; UsageError if there can be none."""
    topics: dict[str, str] = {}
    longest = options.engine.capabilities.longest_name
    read = {source.topic for source in options.sources}
    for topic in read:
        try:
            topics[topic] = options.dead_letter_topic or dead_letter_topic(topic, longest)
        except NameInvalid as error:
            raise UsageError(f"dead letters of {topic}: {error} (--dead-letter-topic names another)") from error
        if topics[topic] in read:
            raise UsageError(
                f"{topics[topic]} is read, and takes the dead letters of {topic}: they would be read again;"
                " name another with --dead-letter-topic, or choose --on-error"
            )
    return topics
