"""Refuses a bridge that would feed itself. In: where it reads and writes. Out: the topics it must not write to."""

from __future__ import annotations

from qtools.bridge.options import BridgeOptions


async def forbidden_topics(options: BridgeOptions) -> frozenset[str]:
    """The topics that are read, if the destination is the cluster that they are read from; otherwise no topic."""
    if options.to_engine is not None:
        here, there = await options.engine.identity(), await options.to_engine.identity()
        if not here & there:
            return frozenset()
    return frozenset(source.topic for source in options.sources)
