"""The metric families that commands share, so that one dashboard can show all commands. In: counters. Out: families.

    qtools_COMMAND_messages_total{outcome}    the messages that were read, by outcome: finished, refused, requeued …
    qtools_COMMAND_…{side}                    connections and reconnects, of the source and of the destination

This module knows the flow, the consumer and the publisher only by the counters that they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.metrics_format import Family, counter, gauge


class FlowCounters(Protocol):
    """The totals of the flow: messages, and bytes of bodies."""

    @property
    def read(self) -> int: ...
    @property
    def finished(self) -> int: ...
    @property
    def finished_bytes(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def requeued(self) -> int: ...


class ConsumerCounters(Protocol):
    """The counters of a consumer (contract.SourceCounters). lag: s. lag_messages: what is not finished in the channels.
    None: the engine cannot tell; the metric is left out then.
    """

    @property
    def received(self) -> int: ...
    @property
    def redelivered(self) -> int | None: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def connected(self) -> int: ...
    @property
    def reconnects(self) -> int | None: ...
    @property
    def acknowledgements_failed(self) -> int | None: ...
    @property
    def lag_messages(self) -> int | None: ...
    @property
    def lag(self) -> float: ...


class PublisherCounters(Protocol):
    """The counters of a publisher."""

    @property
    def published(self) -> int: ...
    @property
    def published_bytes(self) -> int: ...
    @property
    def resent(self) -> int: ...
    @property
    def unanswered(self) -> int: ...
    @property
    def connected(self) -> int: ...
    @property
    def reconnects(self) -> int | None: ...


def prefix_of(command: str) -> str:
    """`q-to-file` → `qtools_to_file`"""
    return "qtools_" + command.removeprefix("q-").replace("-", "_")


def messages_by_outcome(command: str, outcomes: Mapping[str, int]) -> Family:
    """The family of messages by outcome. outcomes: outcome → number of messages."""
    return Family(
        f"{prefix_of(command)}_messages_total",
        "counter",
        "Messages by outcome.",
        [({"outcome": outcome}, count) for outcome, count in outcomes.items()],
    )


def flow_families(command: str, totals: FlowCounters, **more: int) -> list[Family]:
    """The families of a flow. more: further outcomes, which only the command knows."""
    prefix = prefix_of(command)
    outcomes = {"finished": totals.finished, "refused": totals.refused, "requeued": totals.requeued}
    return [
        counter(f"{prefix}_read_total", "Messages read.", totals.read),
        messages_by_outcome(command, outcomes | more),
        counter(f"{prefix}_bytes_total", "Bytes of the bodies of finished messages.", totals.finished_bytes),
    ]


class FilterCounters(Protocol):
    """The counters of a filter."""

    filtered: int
    left_out: int
    let_through: int


def filter_families(command: str, chosen: FilterCounters | None) -> list[Family]:
    """The families of --where and --select, about messages that count as finished; empty without a filter."""
    if chosen is None:
        return []
    prefix = prefix_of(command)
    return [
        counter(f"{prefix}_filtered_total", "Messages that did not match --where, and were finished.", chosen.filtered),
        counter(f"{prefix}_left_out_total", "Messages on which the expression failed, finished.", chosen.left_out),
        counter(
            f"{prefix}_let_through_total",
            "Messages on which the expression failed, passed on unchanged.",
            chosen.let_through,
        ),
    ]


def consumer_families(command: str, consumer: ConsumerCounters) -> list[Family]:
    """The families of a consumer."""
    prefix = prefix_of(command)
    families = [
        counter(f"{prefix}_received_total", "Messages that brokers delivered.", consumer.received),
        gauge(f"{prefix}_in_flight", "Messages received and neither finished nor requeued.", consumer.in_flight),
        gauge(f"{prefix}_lag_seconds", "Age of the newest received message at its arrival.", round(consumer.lag, 6)),
    ]
    if (redelivered := consumer.redelivered) is not None:
        families.append(counter(f"{prefix}_redelivered_total", "Received messages with attempts above 1.", redelivered))
    if (late := consumer.acknowledgements_failed) is not None:
        text = "Messages that could not be finished any more and are delivered again."
        families.append(counter(f"{prefix}_late_finishes_total", text, late))
    if (lag := consumer.lag_messages) is not None:
        families.append(gauge(f"{prefix}_lag_messages", "Messages of the channels that are not finished.", lag))
    return [*families, *_connection_families(prefix, "source", consumer)]


def publisher_families(command: str, publishers: Iterable[PublisherCounters], latency: Histogram) -> list[Family]:
    """The families of publishers, summed up. latency: the histogram, in s, to which they add each response."""
    prefix = prefix_of(command)
    every = list(publishers)
    return [
        counter(f"{prefix}_published_total", "Messages that brokers answered OK.", sum(p.published for p in every)),
        counter(
            f"{prefix}_published_bytes_total",
            "Bytes of the commands that brokers answered OK.",
            sum(p.published_bytes for p in every),
        ),
        counter(f"{prefix}_resent_total", "Messages sent again after a lost response.", sum(p.resent for p in every)),
        gauge(f"{prefix}_unanswered", "Commands without a response so far.", sum(p.unanswered for p in every)),
        Family(
            f"{prefix}_publish_seconds",
            "histogram",
            "Time from sending a message to its OK.",
            [({}, latency.value())],
        ),
        *_connection_families(prefix, "destination", *every),
    ]


def _connection_families(prefix: str, side: str, *ends: ConsumerCounters | PublisherCounters) -> list[Family]:
    labels = {"side": side}
    connected = sum(each.connected for each in ends)
    families = [Family(f"{prefix}_connections", "gauge", "Open connections.", [(labels, connected)])]
    known = [each.reconnects for each in ends if each.reconnects is not None]
    if known or not ends:
        text = "Connections opened again after a loss."
        families.append(Family(f"{prefix}_reconnects_total", "counter", text, [(labels, sum(known))]))
    return families
