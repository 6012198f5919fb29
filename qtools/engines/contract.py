"""All that a command may know of an engine, which is a message system such as NSQ or Kafka. In, and out: plain data.

    Engine ─▶ source(subscriptions)   messages in, and what becomes of them
           ─▶ publisher()             messages out, and when they are safe
           ─▶ statistics()            which topics there are, and what waits in them
           ─▶ identity()              which cluster this is

A command never asks which engine it has. Where engines differ it asks for a capability (requirements.py), so that a
flag that an engine cannot honour is a usage error before anything is read, and is never ignored.

The nouns are NSQ's: a topic holds messages, a channel is a group of readers that share the messages of a topic.

To add an engine, write in a folder of its own:

    engine.py      the Engine of this file: capabilities (capabilities.py), tls, source, publisher, topics, statistics,
                   peek, identity, str(); and `delete` with the capability `deletion` (deletion.py)
    options.py     ENGINE, a connection_options.EngineOptions: the engine's name, its options and flags besides the
                   shared ones, the variables with its password and user, and `make`, which calls merged_fields()
    a Source       of this file. As base class run_end.PolledRunEnd ends runs, given in_flight, end, has_begun and
                   is_finished; redelivery.py counts and delays deliveries where the broker does not
    an Origin      of message.py, one for each connection or read: topic, address, is_lost, finish, requeue, touch. A
                   RecordOrigin also makes ids, timestamps, attempts, keys and headers of its client's records, on
                   demand; a PartitionOrigin also has what archives by offsets need (`exclusive_partitions`)
    a Publisher    of this file; Topics, and Statistics

Then add a line for each of its schemes to url.SCHEMES, a function to choice.ENGINES, its layer to tests/test_layers.py,
and a server to tests/engines/clusters, with which all of tests/engines runs. connections/ has connections, TLS and
messages in flight for an engine with a protocol of its own. A count that the engine cannot tell is None.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from qtools.engines.capabilities import Capabilities
from qtools.flow.contract import FlowSource, GroupAttributes, Refused
from qtools.message import Batch
from qtools.names import Subscription

if TYPE_CHECKING:
    from qtools.engines.connections.tls import TlsSettings

# ── reading ─────────────────────────────────────────────────────────────────────────────────────


class EndConditions(NamedTuple):
    """When a run ends by itself. idle_timeout: s, None for never. fail_if_paused: a paused channel is an error."""

    until_empty: bool = False
    until_now: bool = False
    idle_timeout: float | None = None
    fail_if_paused: bool = False

    @property
    def settling_time(self) -> float:
        """s from the start of a run until its channels exist: 1, or less if --idle-timeout may end it before that."""
        return 1.0 if self.idle_timeout is None else min(1.0, self.idle_timeout / 2)

    @property
    def flag(self) -> str:
        """The flag that needs the depths of channels, or "" if neither was given."""
        return "--until-empty" if self.until_empty else "--until-now" if self.until_now else ""


Advice = Callable[[str, int], str]


class SourceOptions(NamedTuple):
    """How a source reads.

    max_in_flight: the most messages that are unfinished at once. limit: how many to read in all; not one more is in
    flight than that. since: s since 1970 where new channels begin; None: where the engine begins new channels.
    partition, offset: of temporary channels: the only partition to read, and where all of them begin: at this offset,
    or, if it is negative, so many messages before their ends.
    goes_on: with `since`, a channel that exists goes on where it stands, and the log says so; otherwise that is a
    UsageError.
    guarded: subscriptions through temporary channels that the user did not choose. A source refuses to start with one
    that would take a topic's only messages; `advice` returns what the error says to do, for a topic and the number of
    its messages. warns: log before the start that messages wait in other channels; guarded_level: the level (logging)
    at which this is logged for guarded subscriptions.
    """

    max_in_flight: int = 2500
    limit: int | None = None
    ends: EndConditions = EndConditions()
    since: float | None = None
    goes_on: bool = False
    guarded: tuple[Subscription, ...] = ()
    advice: Advice | None = None
    warns: bool = True
    guarded_level: int = logging.WARNING
    partition: int | None = None
    offset: int | None = None


class RunEnd(Protocol):
    """The part of a source that ends a run by itself. engines/run_end.py has it for an engine that can be asked what is
    left."""

    async def wait_for_end(self) -> bool:
        """Wait for the first of the end conditions, end, and return True; return False at once without a condition.

        Raises what makes the end impossible to reach (SourceDeleted, SourcePaused, NetworkError, PeerError); the source
        is ended then too.
        """

    async def wait_until_empty(self) -> None:
        """Return when nothing is left in any subscription. Raises what `wait_for_end` does."""

    async def warn_later(self, named: Sequence[Subscription]) -> None:
        """Once channels exist: log what the run will not get, although its user may expect it. `named`: the
        subscriptions that the user wrote down, and may have mistyped."""

    async def is_drained_on(self, before: Callable[[Subscription, str], bool], flag: str) -> bool:
        """`before(subscription, address)` says whether a subscription counts on the broker at that address. Returns
        whether nothing is left of the subscriptions that count; False while a broker is not connected.

        flag: the flag that needs it, for errors: StartError, NetworkError, PeerError.
        """

    def delivered_to_other_channels(self) -> dict[Subscription, int]:
        """After `prepare` with an end condition: for each subscription whose channel is new, how many messages other
        channels of the topic were given before; nothing for a subscription of which nothing was given."""


class SourceCounters(Protocol):
    """What a source counts, from its start on. None: the engine cannot tell.

    received: messages that arrived; redelivered: of those, messages that had been delivered before. in_flight: messages
    that arrived and are neither finished nor given back. unread_bytes: bytes that arrived and were not read. connected:
    connections that are subscribed. reconnects: how often a lost connection was opened again. acknowledgements_failed:
    finishes that came too late: those messages come again. lag: how old the newest message was when it came, s.
    lag_messages: messages of the subscriptions that are not finished, by what the source knows without asking.
    """

    @property
    def received(self) -> int: ...
    @property
    def redelivered(self) -> int | None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def unread_bytes(self) -> int: ...
    @property
    def connected(self) -> int: ...
    @property
    def reconnects(self) -> int | None: ...
    @property
    def acknowledgements_failed(self) -> int | None: ...
    @property
    def lag(self) -> float: ...
    @property
    def lag_messages(self) -> int | None: ...


class Source(FlowSource, RunEnd, SourceCounters, Protocol):
    """Reads subscriptions. `prepare`, `start`, then `read` until None, then `close`.

    What was read is acknowledged through its batches (Batch.finish, requeue, touch).
    """

    subscriptions: list[Subscription]
    on_received: Callable[[int], None] | None  # called with the bytes of each read of a socket

    async def prepare(self) -> None:
        """Query the cluster for everything needed before the first message is taken, and warn about messages that the
        run will not get. Raises UsageError, StartError and TopicMissing; nothing was subscribed to then."""

    async def start(self) -> None:
        """Connect and subscribe; StartError when no broker could be reached."""

    async def add(self, subscription: Subscription) -> None:
        """Read `subscription` too, from now on; StartError when no broker could be reached; then it is not read."""

    def end(self) -> None:
        """Let `read` return None once all that has arrived was read; no more is asked for."""

    def discard(self) -> None:
        """End, and drop what has not been read: it goes back to its channels when the source is closed."""

    def rest(self) -> None:
        """Ask for nothing more and give back what was not read; what was read may still be acknowledged."""

    def resume(self, limit: int | None) -> None:
        """Go on after `rest`, for `limit` messages more."""

    @property
    def may_resume(self) -> bool:
        """Whether there is a connection to resume, and `end` was not called."""

    @property
    def acknowledgement_timeout(self) -> float | None:
        """s until an unfinished message is delivered again, untouched: infinity if it never is; None while it is not
        known."""


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


class NewTopics(NamedTuple):
    """How topics are created: with how many partitions and replicas; 0: as the cluster's own settings say."""

    partitions: int = 0
    replicas: int = 0


class PublisherOptions(NamedTuple):
    """How a publisher writes.

    batch_count (messages), batch_bytes: the most that one request holds. delay_ms: how long the broker holds back each
    message. replicate: every broker gets each message. balance: "fastest", "round-robin", or "" for the least busy one.
    retry_timeout: s that a publish may wait for a reachable broker; None for no limit.
    on_published: called for each write that was confirmed, with the s that it took and the messages in it.
    new_topics: how topics are created that do not exist; None: they are not created, by an engine that has a choice.
    new_topics_flag: the flag of the command that gives `new_topics`, for errors; "" if it has none. topics: topics that
    messages will go to: one that does not exist is created at the start as `new_topics` says, or is an error then.
    partition: the number of the partition for all messages; None: their keys, or the engine, choose one.
    later_topics: topics that messages may go to, if they cannot be delivered: for one that does not exist, and will not
    be created, a warning is logged at the start.
    """

    batch_count: int = 5000
    batch_bytes: int = 1024 * 1024
    delay_ms: int = 0
    replicate: bool = False
    balance: str = ""
    retry_timeout: float | None = None
    on_published: Callable[[float, int], None] | None = None
    new_topics: NewTopics | None = None
    new_topics_flag: str = ""
    topics: tuple[str, ...] = ()
    later_topics: tuple[str, ...] = ()
    partition: int | None = None


class Publisher(Protocol):
    """Publishes to any topics over shared connections."""

    async def start(self) -> None:
        """Connect; StartError when no broker could be reached, TopicMissing (PublisherOptions.topics)."""

    async def publish(
        self,
        groups: Sequence[tuple[str, Sequence[bytes]]],
        delay_ms: int | None = None,
        *,
        attributes: GroupAttributes | None = None,
    ) -> Refused:
        """Publish all of `groups`, (topic, bodies) each; return when all is confirmed as durably as the engine can.

        delay_ms: instead of the publisher's own. attributes: keys and headers, kept by an engine that has them; others
        do not call it. The result holds the messages that were refused, by (group, place in the group): among them the
        bodies that the engine does not have (`empty_messages`, `tombstones`).
        Raises NetworkError when no broker was reachable in time, BrokerError when everything was refused for so long.
        """

    async def close(self) -> None:
        """Close the connections; publishes that still run are not completed."""

    @property
    def published(self) -> int:
        """Messages that were confirmed."""

    @property
    def published_bytes(self) -> int:
        """Bytes of the requests that were confirmed."""

    @property
    def resent(self) -> int:
        """Messages sent again because the confirmation was lost: they may be in the topic twice."""

    @property
    def unanswered(self) -> int:
        """Requests that wait for a confirmation."""

    @property
    def connected(self) -> int:
        """How many brokers are connected now."""

    @property
    def reconnects(self) -> int | None:
        """How often a lost connection was opened again; None if the engine cannot tell."""


# ── about topics ────────────────────────────────────────────────────────────────────────────────


class Topics(Protocol):
    """Which topics there are."""

    async def look(self) -> set[str]:
        """All present topics. StartError when no broker answers; that some do not is logged."""

    async def look_again(self) -> set[str]:
        """As `look`; none when no broker answers, which is logged once."""

    async def close(self) -> None: ...


class Statistics(Protocol):
    """What waits in topics."""

    async def topics(self) -> list[dict[str, Any]]:
        """One entry for each topic, by name, added up over all brokers:

            {topic, depth, messages, bytes, paused,
             channels: [{channel, depth, in_flight, deferred, messages, requeued, timed_out, clients, paused}]}

        All but names and `paused` are counts; one that the engine cannot tell is None, and never 0. StartError,
        NetworkError or PeerError when no broker answers.
        """

    async def close(self) -> None: ...


# ── the engine ──────────────────────────────────────────────────────────────────────────────────


class Engine(Protocol):
    """One cluster of a message system. Making an engine connects to nothing. Its `str()` is its address, no secrets."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def tls(self) -> TlsSettings | None:
        """What was said about TLS; None if nothing was."""

    def source(self, subscriptions: Sequence[Subscription], options: SourceOptions | None = None) -> Source: ...

    def publisher(self, options: PublisherOptions | None = None) -> Publisher: ...

    def topics(self) -> Topics:
        """StartError where it cannot be known which topics there are."""

    def statistics(self) -> Statistics: ...

    async def peek(self, subscription: Subscription, count: int) -> list[Batch]:
        """The first messages that wait in `subscription`, at most `count`; they stay there.

        UsageError when it does not exist or this broker cannot show it, StartError when none can be reached, PeerError.
        """

    async def identity(self) -> frozenset[tuple[str, ...]]:
        """Names of the cluster. Two engines that have one in common are the same cluster: what is published to one may
        be read from the other. StartError when it cannot be known."""
