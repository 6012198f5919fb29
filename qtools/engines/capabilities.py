"""What engines can do, and what a user can do instead where an engine cannot. Plain data."""

from __future__ import annotations

from typing import NamedTuple

from qtools.names import MAX_NAME_LENGTH


class Capabilities(NamedTuple):
    """What an engine can do: each capability has one meaning, and one use. engine, broker: what it and its server are
    called in messages: "NSQ", "nsqd".

    default_max_in_flight: what commands take as max_in_flight where none is given. longest_name: the most characters of
    the name of a topic or a channel. reserved_names: names that the engine does not accept for either.
    """

    engine: str
    broker: str
    # ── channels ──
    temporary_channels: bool = False  # a channel whose name ends in #ephemeral exists only while it is read
    since: bool = False  # a new channel can begin at a time (SourceOptions.since)
    peek: bool = False  # messages can be read that stay in their channel (Engine.peek)
    pause: bool = False  # a channel can be paused, and it is known whether it is
    depths: bool = False  # it is known how many messages of a channel are not finished: a run can end by that
    # ── acknowledging ──
    requeue_delay: bool = False  # Origin.requeue honours its delay; without it a message comes again at once
    touch: bool = False  # Origin.touch gives a message more time, or there is no message timeout
    cumulative: bool = False  # an unfinished message holds up the acknowledgement of those after it
    # ── messages ──
    keys_and_headers: bool = False  # a message has a key and headers; an engine may send the key in a header
    empty_messages: bool = False  # a body may have no bytes
    tombstones: bool = False  # a message may have no body at all (attributes.TOMBSTONE)
    # ── topics ──
    creation: bool = False  # topics can be created: engines/administration.py
    emptying: bool = False  # what waits in topics and channels can be dropped: engines/administration.py
    deletion: bool = False  # topics and channels can be deleted: engines/administration.py
    retention: bool = False  # a topic keeps messages that all its channels have finished
    partitions: bool = False  # a topic is created with a number of partitions (NewTopics)
    replicas: bool = False  # a topic is created with a number of replicas (NewTopics)
    # One reader of a channel at a time reads a partition, in the order of its offsets, and every origin of messages is
    # a message.PartitionOrigin: q-to-file archives by offsets then, each message exactly once.
    exclusive_partitions: bool = False
    # ── publishing ──
    deferred_publishing: bool = False  # PublisherOptions.delay_ms
    dedupe_ids: bool = False  # the broker leaves out a message whose id (Attributes.dedupe_ids) it had lately
    replication: bool = False  # PublisherOptions.replicate: each broker gets each message
    # ── limits ──
    default_max_in_flight: int = 2500
    longest_name: int = MAX_NAME_LENGTH
    reserved_names: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """The capabilities that it has."""
        return [name for name in self._fields if getattr(self, name) is True]


# What an engine without the capability cannot do, and what to do instead on a command line.
_WITHOUT = {
    "temporary_channels": ("has no temporary channels", "name one, as in TOPIC/CHANNEL"),
    "since": ("cannot begin at a time", "read from where the channel stands"),
    "peek": ("does not show messages without taking them", "read them through a channel of their own"),
    "pause": ("has no pause", "leave the flag out"),
    "depths": ("does not tell how much is left", "use --count or --idle-timeout"),
    "requeue_delay": ("delivers a requeued message at once", "leave the delay out"),
    "touch": ("cannot extend the time of a message", "finish it in time"),
    "cumulative": ("acknowledges each message by itself", "leave the flag out"),
    "keys_and_headers": ("has no keys and no headers", "leave the flag out"),
    "empty_messages": ("has no empty messages", "leave empty ones out"),
    "tombstones": ("has no tombstones", "leave messages without a body out"),
    "creation": ("creates no topics", "publish to the topic"),
    "emptying": ("does not drop what waits", "read it, or delete the topic"),
    "deletion": ("does not delete topics", "use the tools of the broker"),
    "retention": ("deletes what all channels have finished", "leave the flag out"),
    "partitions": ("has no partitions", "use --create-topics default"),
    "replicas": ("does not set how many replicas there are", "use --create-topics default"),
    "exclusive_partitions": ("has no partitions that are read by one reader each", "leave the flag out"),
    "deferred_publishing": ("cannot hold messages back", "leave the flag out"),
    "dedupe_ids": ("does not find duplicates by ids", "leave the flag out, or use q-bridge --dedupe"),
    "replication": ("replicates by itself", "leave the flag out"),
}


def what_is_missing(capabilities: Capabilities, capability: str) -> str:
    """What an engine without `capability` cannot do, as "NSQ has no pause"; "" for an engine that has it."""
    return "" if getattr(capabilities, capability) else f"{capabilities.engine} {_WITHOUT[capability][0]}"


def advice_without(capability: str) -> str:
    """What to do on a command line with an engine that lacks `capability`."""
    return _WITHOUT[capability][1]
