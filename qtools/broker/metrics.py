"""What /metrics tells: the counts of /stats in Prometheus' text format. In: the broker. Out: text.

    # HELP nsq_channel_depth Messages that wait for a client.
    # TYPE nsq_channel_depth gauge
    nsq_channel_depth{topic="events",channel="archive"} 12

Collected when somebody asks, and at no other time. Names of topics and channels hold nothing that would have to
be escaped. Format: prometheus.io/docs/instrumenting/exposition_formats, version 0.0.4.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from qtools import __version__
from qtools.broker.broker import SPEAKS, Broker
from qtools.broker.stats import collect, resident_bytes

Plain = dict[str, Any]


class _Family(NamedTuple):
    name: str
    kind: str
    help: str
    value: Callable[[Plain], float]


def _field(name: str) -> Callable[[Plain], float]:
    return lambda told: told[name]


_TOPIC = (
    _Family("depth", "gauge", "Messages that no channel has got yet.", _field("depth")),
    _Family("messages_total", "counter", "Messages that were published.", _field("message_count")),
    _Family("message_bytes_total", "counter", "Bytes of their bodies.", _field("message_bytes")),
    _Family("dropped_total", "counter", "Messages that an ephemeral topic had no room for.", _field("dropped_count")),
    _Family("channels", "gauge", "Channels.", lambda told: len(told["channels"])),
    _Family("paused", "gauge", "1 while it is paused.", _field("paused")),
)
_CHANNEL = (
    _Family("depth", "gauge", "Messages that wait for a client.", _field("depth")),
    _Family("in_flight", "gauge", "Messages that clients have and have not finished.", _field("in_flight_count")),
    _Family("deferred", "gauge", "Messages that wait for their time.", _field("deferred_count")),
    _Family("messages_total", "counter", "Messages that came into the channel.", _field("message_count")),
    _Family("requeues_total", "counter", "Messages that clients gave back.", _field("requeue_count")),
    _Family("timeouts_total", "counter", "Messages that were not finished in time.", _field("timeout_count")),
    _Family("dropped_total", "counter", "Messages that an ephemeral channel had no room for.", _field("dropped_count")),
    _Family("clients", "gauge", "Clients that are subscribed.", _field("client_count")),
    _Family("paused", "gauge", "1 while it is paused.", _field("paused")),
)


def as_prometheus(broker: Broker, connections: int) -> bytes:
    """Everything; `connections` is how many NSQ clients are connected."""
    told = collect(broker, (), include_clients=False, include_mem=False)
    topics = [(f'topic="{topic["topic_name"]}"', topic) for topic in told["topics"]]
    channels = [
        (f'{labels},channel="{channel["channel_name"]}"', channel)
        for labels, topic in topics
        for channel in topic["channels"]
    ]
    lines: list[str] = []
    for prefix, families, rows in (("nsq_topic", _TOPIC, topics), ("nsq_channel", _CHANNEL, channels)):
        for family in families:
            samples = [(labels, family.value(row)) for labels, row in rows]
            _put(lines, f"{prefix}_{family.name}", family.kind, family.help, samples)
        latencies = [
            (f'{labels},quantile="{one["quantile"]:g}"', one["value"] / 1e9)
            for labels, row in rows
            for one in row["e2e_processing_latency"]["percentiles"] or ()
        ]
        if latencies:
            name = f"{prefix}_e2e_processing_latency_seconds"
            _put(lines, name, "gauge", "From published to finished, over the window.", latencies)
    about = f'version="{__version__}",speaks="{SPEAKS}"'
    _put(lines, "q_broker_info", "gauge", "Which broker this is.", [(about, 1)])
    _put(lines, "q_broker_healthy", "gauge", "0 while nothing can be kept.", [("", not broker.failure)])
    _put(lines, "q_broker_connections", "gauge", "NSQ clients that are connected.", [("", connections)])
    for name, kind, text, value in _process(broker):
        _put(lines, name, kind, text, [("", value)])
    return "".join(lines).encode()


def _put(lines: list[str], name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> None:
    lines.append(f"# HELP {name} {text}\n# TYPE {name} {kind}\n")
    lines += [f"{name}{{{labels}}} {value:.17g}\n" if labels else f"{name} {value:.17g}\n" for labels, value in samples]


def _process(broker: Broker) -> list[tuple[str, str, str, float]]:
    """This process, by the names that Prometheus' own clients use."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    found: list[tuple[str, str, str, float]] = [
        ("process_start_time_seconds", "gauge", "When it was started, in seconds since 1970.", broker.started),
        ("process_cpu_seconds_total", "counter", "CPU time it has used.", used.ru_utime + used.ru_stime),
        ("process_resident_memory_bytes", "gauge", "Memory it has.", resident_bytes()),
    ]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY:
        found.append(("process_max_fds", "gauge", "Files it may have open.", most))
    if sys.platform == "linux":
        open_files = len(os.listdir("/proc/self/fd")) - 1  # without the one that this takes
        found.append(("process_open_fds", "gauge", "Files it has open.", open_files))
    return found
