"""What a run needs of its engines. In: an engine, what was asked for. Out: a usage error before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtools.engines.capabilities import advice_without, what_is_missing
from qtools.engines.contract import EndConditions, Engine, NewTopics
from qtools.errors import UsageError
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.flow.keying import Keying


def require(engine: Engine, capability: str, flag: str) -> None:
    """Raise UsageError if `engine` lacks the `capability` that `flag` needs."""
    if missing := what_is_missing(engine.capabilities, capability):
        raise UsageError(f"{flag}: {missing}: {advice_without(capability)}")


def require_for_end(engine: Engine, ends: EndConditions) -> None:
    """Raise UsageError if `engine` cannot tell when a condition of `ends` is met."""
    if ends.flag:
        require(engine, "depths", ends.flag)
    if ends.fail_if_paused:
        require(engine, "pause", "--fail-if-paused")


def require_for_publishing(engine: Engine, keying: Keying | None, new_topics: NewTopics | None) -> None:
    """Raise UsageError if `engine` cannot keep keys and headers, finds no duplicates by ids,
    or cannot create topics as asked."""
    if keying is not None:
        if keying.key is not None or keying.headers:
            require(engine, "keys_and_headers", "--key" if keying.key is not None else "--header")
        if keying.dedupe_id is not None:
            require(engine, "dedupe_ids", "--dedupe-id")
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
