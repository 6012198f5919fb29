"""/metrics for Prometheus: the counts of /stats, by topic and channel. In: the broker. Out: metric families.

They are collected only when /metrics is requested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from qtools.broker.core.broker import Broker
from qtools.broker.core.slices import Steps
from qtools.broker.observe.stats import collecting
from qtools.cli.metrics.metrics_format import Family, counter, gauge, head_lines, process_families, sample_lines
from qtools.web.memory_budget import MemoryBudget

_AT_ONCE = 500  # samples that are rendered between two pauses for the event loop

Plain = dict[str, Any]


class _Count(NamedTuple):
    name: str
    kind: str
    help: str
    value: Callable[[Plain], float]


def _field(name: str) -> Callable[[Plain], float]:
    return lambda stats: stats[name]


_TOPIC = (
    _Count("depth", "gauge", "Messages that no channel has got yet.", _field("depth")),
    _Count("backend_depth", "gauge", "How many of them are on disk only.", _field("backend_depth")),
    _Count("messages_total", "counter", "Messages that were published.", _field("message_count")),
    _Count("message_bytes_total", "counter", "Bytes of their bodies.", _field("message_bytes")),
    _Count("dropped_total", "counter", "Messages that an ephemeral topic had no room for.", _field("dropped_count")),
    _Count("channels", "gauge", "Channels.", lambda stats: len(stats["channels"])),
    _Count("paused", "gauge", "1 while it is paused.", _field("paused")),
)
_CHANNEL = (
    _Count("depth", "gauge", "Messages that wait for a client.", _field("depth")),
    _Count("backend_depth", "gauge", "How many of them are on disk only.", _field("backend_depth")),
    _Count("in_flight", "gauge", "Messages that clients have and have not finished.", _field("in_flight_count")),
    _Count("deferred", "gauge", "Messages that wait for their time.", _field("deferred_count")),
    _Count("messages_total", "counter", "Messages that came into the channel.", _field("message_count")),
    _Count("requeues_total", "counter", "Messages that clients gave back.", _field("requeue_count")),
    _Count("timeouts_total", "counter", "Messages that were not finished in time.", _field("timeout_count")),
    _Count("dropped_total", "counter", "Messages that an ephemeral channel had no room for.", _field("dropped_count")),
    _Count("clients", "gauge", "Clients that are subscribed.", _field("client_count")),
    _Count("paused", "gauge", "1 while it is paused.", _field("paused")),
)


def as_prometheus(broker: Broker, connections: int, budget: MemoryBudget) -> Steps[bytes]:
    """The page. connections: how many NSQ clients are connected."""
    stats = yield from collecting(broker, (), include_clients=False, include_mem=False)
    parts: list[str] = []
    for family in _families(stats, broker, connections, budget):  # each has a name of its own
        parts += head_lines(family)
        yield
        for start in range(0, len(family.samples), _AT_ONCE):
            parts.append("\n".join(sample_lines(family.name, family.samples[start : start + _AT_ONCE])))
            yield
    return "\n".join([*parts, ""]).encode()


def _families(stats: Plain, broker: Broker, connections: int, budget: MemoryBudget) -> Iterator[Family]:
    topics = [({"topic": topic["topic_name"]}, topic) for topic in stats["topics"]]
    channels = [
        (labels | {"channel": channel["channel_name"]}, channel)
        for labels, topic in topics
        for channel in topic["channels"]
    ]
    for prefix, counts, rows in (("nsq_topic", _TOPIC, topics), ("nsq_channel", _CHANNEL, channels)):
        for one in counts:
            samples = [(labels, one.value(row)) for labels, row in rows]
            yield Family(f"{prefix}_{one.name}", one.kind, one.help, samples)
        latencies = [
            (labels | {"quantile": f"{share['quantile']:g}"}, share["value"] / 1e9)
            for labels, row in rows
            for share in row["e2e_processing_latency"]["percentiles"] or ()
        ]
        if latencies:
            name = f"{prefix}_e2e_processing_latency_seconds"
            yield Family(name, "gauge", "From published to finished, over the window.", latencies)
    yield gauge("q_broker_healthy", "0 while nothing can be kept, or something cannot be read.", broker.health == "OK")
    unreadable = Counter[str]()
    for lost in broker.store.lost:
        unreadable[lost.topic] += lost.messages
    yield Family(
        "q_broker_damaged_messages",
        "gauge",
        "Messages that were kept and cannot be read any more.",
        [({"topic": name}, count) for name, count in sorted(unreadable.items())],
    )
    yield gauge("q_broker_connections", "NSQ clients that are connected.", connections)
    yield gauge("q_broker_client_memory_bytes", "Bytes that clients have begun to send, or do not read.", budget.used)
    yield counter(
        "q_broker_ended_for_memory_total", "Clients that were ended, as --max-memory was exceeded.", budget.shed
    )
    yield from process_families("q-broker")
