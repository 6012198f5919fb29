"""The set of families that commands share, so that one dashboard serves them all. In: who counts. Out: families.

    qtools_COMMAND_messages_total{outcome}    what became of what was read: finished, refused, requeued …
    qtools_COMMAND_…{side}                    connections and reconnects, of the source and of the destination

Who counts is known here by what it counts only: its class belongs to another room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from qtools.cli.metrics.histogram import Histogram
from qtools.cli.metrics.metrics_format import Family, counter, gauge


class Counting(Protocol):
    """The loop, as it sums up: messages, and bytes of bodies."""

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


class Reading(Protocol):
    """A consumer."""

    @property
    def received(self) -> int: ...
    @property
    def redelivered(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def connected(self) -> int: ...
    @property
    def reconnects(self) -> int: ...
    @property
    def acknowledgements_failed(self) -> int: ...
    @property
    def lag(self) -> float: ...


class Publishing(Protocol):
    """A publisher."""

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
    def reconnects(self) -> int: ...


def prefix_of(command: str) -> str:
    """`q-to-file` → `qtools_to_file`"""
    return "qtools_" + command.removeprefix("q-").replace("-", "_")


def by_outcome(command: str, outcomes: Mapping[str, int]) -> Family:
    """Messages by what became of them."""
    return Family(
        f"{prefix_of(command)}_messages_total",
        "counter",
        "Messages by what became of them.",
        [({"outcome": outcome}, count) for outcome, count in outcomes.items()],
    )


def flow_families(command: str, totals: Counting, **more: int) -> list[Family]:
    """What the loop counts; `more` are outcomes that only the command knows."""
    prefix = prefix_of(command)
    outcomes = {"finished": totals.finished, "refused": totals.refused, "requeued": totals.requeued}
    return [
        counter(f"{prefix}_read_total", "Messages read.", totals.read),
        by_outcome(command, outcomes | more),
        counter(f"{prefix}_bytes_total", "Bytes of the bodies of finished messages.", totals.finished_bytes),
    ]


class Choosing(Protocol):
    """What a filter counts."""

    filtered: int
    left_out: int
    let_through: int


def filter_families(command: str, chosen: Choosing | None) -> list[Family]:
    """What --where and --select did with messages that count as finished; none where there is no filter."""
    if chosen is None:
        return []
    prefix = prefix_of(command)
    return [
        counter(f"{prefix}_filtered_total", "Messages that did not match, and are done with.", chosen.filtered),
        counter(f"{prefix}_left_out_total", "Messages without an answer, and done with.", chosen.left_out),
        counter(f"{prefix}_let_through_total", "Messages without an answer, passed on unchanged.", chosen.let_through),
    ]


def consumer_families(command: str, consumer: Reading) -> list[Family]:
    """What a consumer counts."""
    prefix = prefix_of(command)
    return [
        counter(f"{prefix}_received_total", "Messages that brokers delivered.", consumer.received),
        counter(f"{prefix}_redelivered_total", "Of those: with attempts above 1.", consumer.redelivered),
        counter(
            f"{prefix}_late_finishes_total",
            "Messages that had timed out at the broker before they were finished.",
            consumer.acknowledgements_failed,
        ),
        gauge(f"{prefix}_in_flight", "Messages received and neither finished nor given back.", consumer.in_flight),
        gauge(f"{prefix}_lag_seconds", "Age of the message that came last, when it came.", round(consumer.lag, 6)),
        *_links(prefix, "source", consumer),
    ]


def publisher_families(command: str, publishers: Iterable[Publishing], latency: Histogram) -> list[Family]:
    """What publishers count, summed up. `latency` is what they tell each answer to."""
    prefix = prefix_of(command)
    every = list(publishers)
    return [
        counter(f"{prefix}_published_total", "Messages that brokers answered OK.", sum(p.published for p in every)),
        counter(
            f"{prefix}_published_bytes_total",
            "Bytes of the commands that brokers answered OK.",
            sum(p.published_bytes for p in every),
        ),
        counter(f"{prefix}_resent_total", "Messages sent again after a lost answer.", sum(p.resent for p in every)),
        gauge(f"{prefix}_unanswered", "Commands that wait for an answer.", sum(p.unanswered for p in every)),
        Family(f"{prefix}_publish_seconds", "histogram", "From sending to OK, by message.", [({}, latency.value())]),
        *_links(prefix, "destination", *every),
    ]


def _links(prefix: str, side: str, *ends: Reading | Publishing) -> list[Family]:
    labels = {"side": side}
    return [
        Family(f"{prefix}_connections", "gauge", "Open connections.", [(labels, sum(e.connected for e in ends))]),
        Family(
            f"{prefix}_reconnects_total",
            "counter",
            "Connections made again after a loss.",
            [(labels, sum(e.reconnects for e in ends))],
        ),
    ]
