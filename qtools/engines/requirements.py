"""What a run needs of its engines. In: an engine, what was asked for. Out: a usage error before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtools.engines.contract import Capabilities, EndConditions, Engine, NewTopics
from qtools.errors import UsageError
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.flow.keying import Keying


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
    "deletion": ("does not delete topics", "leave the flag out"),
    "retention": ("deletes what all channels have finished", "leave the flag out"),
    "partitions": ("has no partitions", "use --create-topics default"),
    "replicas": ("does not set how many replicas there are", "use --create-topics default"),
    "exclusive_partitions": ("has no partitions that are read by one reader each", "leave the flag out"),
    "deferred_publishing": ("cannot hold messages back", "leave the flag out"),
    "replication": ("replicates by itself", "leave the flag out"),
}


def require(engine: Engine, capability: str, flag: str) -> None:
    """Raise UsageError if `engine` lacks the `capability` that `flag` needs."""
    if missing := what_is_missing(engine.capabilities, capability):
        raise UsageError(f"{flag}: {missing}: {_WITHOUT[capability][1]}")


def what_is_missing(capabilities: Capabilities, capability: str) -> str:
    """What an engine without `capability` cannot do, as "NSQ has no pause"; "" for an engine that has it."""
    return "" if getattr(capabilities, capability) else f"{capabilities.engine} {_WITHOUT[capability][0]}"


def require_for_end(engine: Engine, ends: EndConditions) -> None:
    """Raise UsageError if `engine` cannot tell when a condition of `ends` is met."""
    if ends.flag:
        require(engine, "depths", ends.flag)
    if ends.fail_if_paused:
        require(engine, "pause", "--fail-if-paused")


def require_for_publishing(engine: Engine, keying: Keying | None, new_topics: NewTopics | None) -> None:
    """Raise UsageError if `engine` cannot keep keys and headers, or cannot create topics as asked."""
    if keying is not None:
        require(engine, "keys_and_headers", "--key" if keying.key is not None else "--header")
    if new_topics is not None:
        if new_topics.partitions:
            require(engine, "partitions", "--create-topics")
        if new_topics.replicas:
            require(engine, "replicas", "--create-topics")


def channel_exists(subscription: Subscription) -> UsageError:
    """The error for a channel that exists, and was to begin at a time."""
    return UsageError(f"{subscription} exists already, and --since creates a new channel: choose another name, or none")


def channel_goes_on(subscription: Subscription) -> str:
    """The same, for the log of a run that goes on."""
    return f"{subscription} exists already, and goes on where it stands: --since is for new channels"
