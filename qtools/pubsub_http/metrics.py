"""The counters of a gateway, summed over its processes. In: gateways. Out: plain numbers, and families of metrics.

Several workers write their counters into shared memory (SharedCounters), so that each of them can report the sums.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtools.cli.metrics.metric_sets import prefix_of
from qtools.cli.metrics.metrics_format import Family

if TYPE_CHECKING:
    from qtools.pubsub_http.gateway import Gateway

# name, kind, help: in the order of `count`
COUNTED = (
    ("requests_ok_total", "counter", "Requests answered 2xx."),
    ("requests_refused_total", "counter", "Requests answered 4xx."),
    ("requests_failed_total", "counter", "Requests answered 5xx."),
    ("published_total", "counter", "Messages that a broker has confirmed."),
    ("published_bytes_total", "counter", "Bytes of their bodies."),
    ("resent_total", "counter", "Messages sent again after a lost answer."),
    ("repeated_total", "counter", "Requests whose Idempotency-Key had been answered before."),
    ("delivered_total", "counter", "Messages written to subscribers."),
    ("delivered_bytes_total", "counter", "Bytes that they took."),
    ("finished_total", "counter", "Messages that were finished, by the gateway or by clients with ack=client."),
    ("filtered_total", "counter", "Messages that were finished unsent because they did not match where=."),
    (
        "where_failed_total",
        "counter",
        "Of those, messages for which where= has no answer.",
    ),
    ("requeued_total", "counter", "Messages that clients gave back."),
    ("timed_out_total", "counter", "Messages that clients did not finish within msg_timeout."),
    ("missed_total", "counter", "Messages that slow subscribers without a channel missed."),
    (
        "ended_for_memory_total",
        "counter",
        "Slow clients that were disconnected because --max-memory was exceeded.",
    ),
    ("refused_for_memory_total", "counter", "Publishing requests that were refused for the same reason."),
    ("memory_bytes", "gauge", "Bytes in memory for clients."),
    ("subscribers", "gauge", "Streams that are open."),
    ("sessions", "gauge", "Of those, with ack=client."),
    ("shared_topics", "gauge", "Topics read once for all subscribers without a channel."),
    ("clients", "gauge", "HTTP connections that are open."),
    ("brokers", "gauge", "Brokers connected to publish to."),
)


def count(gateway: Gateway, clients: int) -> tuple[int, ...]:
    """The numbers of one gateway, in the order of COUNTED."""
    by_class = {2: 0, 4: 0, 5: 0}
    for status, number in gateway.app.requests.items():
        by_class[status // 100] = by_class.get(status // 100, 0) + number
    finished, requeued, timed_out = gateway.sessions.totals()
    counts, batcher = gateway.subscribing.counts, gateway.batcher
    return (
        by_class[2],
        by_class[4],
        by_class[5],
        batcher.published,
        batcher.published_bytes,
        batcher.resent,
        gateway.idempotency.repeated,
        counts.sent,
        counts.sent_bytes,
        counts.finished + finished,
        counts.filtered,
        counts.undecided,
        requeued,
        timed_out,
        gateway.fanouts.dropped,
        gateway.budget.shed,
        batcher.refused_for_memory,
        gateway.budget.used,
        gateway.subscribing.open,
        len(gateway.sessions),
        gateway.fanouts.upstream,
        clients,
        batcher.connected,
    )


def families(numbers: Sequence[int]) -> list[Family]:
    """`numbers`, in the order of COUNTED, as Prometheus has them."""
    prefix = prefix_of("q-pubsub-http")
    return [
        Family(f"{prefix}_{name}", kind, what, [({}, number)])
        for (name, kind, what), number in zip(COUNTED, numbers, strict=True)
    ]


class SharedCounters:
    """The numbers of `workers` processes, in memory that children of this one share."""

    _ROW = struct.Struct(f"={len(COUNTED)}q")

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(
            -1, (self._ROW.size + 1) * workers
        )  # after the rows: a byte for each worker, whether it serves

    def write(self, worker: int, numbers: Sequence[int]) -> None:
        self._ROW.pack_into(self._memory, worker * self._ROW.size, *numbers)

    def read(self, worker: int) -> tuple[int, ...]:
        return self._ROW.unpack_from(self._memory, worker * self._ROW.size)

    def set_serving(self, worker: int, serving: bool) -> None:
        self._memory[self._ROW.size * self._workers + worker] = serving

    def is_serving(self, worker: int) -> bool:
        return bool(self._memory[self._ROW.size * self._workers + worker])

    def sums(self) -> tuple[int, ...]:
        return tuple(map(sum, zip(*(self.read(worker) for worker in range(self._workers)), strict=True)))
