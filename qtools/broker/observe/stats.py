"""/stats: all topics, channels and clients with their counts. In: the broker. Out: plain data, or text.

Keys, order and layout are nsqd 1.3.0's (nsqd/stats.go, http.go), as nsqadmin and scripts read them. Two keys are not in
nsqd: `dropped_count`, the messages that an ephemeral topic or channel had no room for, and `damaged`, the messages that
were stored and can no longer be read. Memory is this process's, under the keys that nsqd has for Go's memory:
`heap_in_use_bytes` is the resident size.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from qtools.broker.core import latency
from qtools.broker.core.broker import Broker
from qtools.broker.core.channel import Channel
from qtools.broker.core.consumer import ChannelConsumer
from qtools.broker.core.slices import Steps, in_one
from qtools.broker.core.topic import Topic
from qtools.broker.options import NSQD_VERSION
from qtools.broker.tcp.client_connection import ClientConnection

Plain = dict[str, Any]

_AT_ONCE = 200  # channels that are converted to JSON together

_MOST_DAMAGED = 1000  # the newest ranges, in one answer; the report beside the database has all


def collect(
    broker: Broker,
    connections: Iterable[ClientConnection],
    *,
    topic: str = "",
    channel: str = "",
    include_clients: bool = True,
    include_mem: bool = True,
) -> Plain:
    """All statistics, or those of one topic or channel."""
    return in_one(
        collecting(
            broker,
            connections,
            topic=topic,
            channel=channel,
            include_clients=include_clients,
            include_mem=include_mem,
        )
    )


def collecting(
    broker: Broker,
    connections: Iterable[ClientConnection],
    *,
    topic: str = "",
    channel: str = "",
    include_clients: bool = True,
    include_mem: bool = True,
) -> Steps[Plain]:
    """As `collect`, with pauses between channels. Topics made or deleted meanwhile may or may not be included.

    A message that moves from a topic to its channels during a pause is counted: the topic is read first.
    """
    stats: Plain = {"version": NSQD_VERSION, "health": broker.health, "start_time": int(broker.started)}
    if topic and topic not in broker.topics:
        stats["topics"] = None
    else:
        chosen = [broker.topics[topic]] if topic else [broker.topics[name] for name in sorted(broker.topics)]
        stats["topics"] = rows = []
        for one in chosen:
            if (channel and channel not in one.channels) or broker.topics.get(one.name) is not one:
                continue
            row = yield from _topic(one, channel, include_clients, broker.options.e2e_processing_latency_percentiles)
            rows.append(row)
            yield
    lost = [one._asdict() for one in broker.store.lost if not topic or one.topic == topic]
    if lost:
        stats["damaged"] = lost[-_MOST_DAMAGED:]
    if include_mem:
        stats["memory"] = _memory()
    publishers = [client_stats(one, topic) for one in connections if one.published] if include_clients else []
    stats["producers"] = publishers if publishers and not (topic and topic not in broker.topics) else None
    return stats


def _topic(topic: Topic, channel: str, include_clients: bool, quantiles: Sequence[float]) -> Steps[Plain]:
    latencies = [one.latency for one in topic.channels.values() if one.latency is not None]
    names = [channel] if channel else sorted(topic.channels)
    channels: list[Plain] = []
    row = {
        "topic_name": topic.name,
        "channels": channels,
        "depth": topic.depth,
        "backend_depth": topic.cold,
        "message_count": topic.messages,
        "message_bytes": topic.bytes,
        "dropped_count": topic.dropped,
        "paused": topic.paused,
        "e2e_processing_latency": latency.summary(latencies, quantiles),
    }
    for name in names:
        there = topic.channels.get(name)
        if there is not None:
            channels.append(_channel(there, include_clients, quantiles))
        yield
    return row


def as_json(stats: Plain) -> Steps[bytes]:
    """The collected statistics as JSON, with pauses: thousands of topics or channels take a tenth of a second."""
    topics = stats["topics"]
    if topics is None:
        return _dumps(stats)
    pieces: list[bytes] = []
    for topic in topics:
        channels = topic["channels"]
        parts: list[bytes] = []
        for start in range(0, len(channels), _AT_ONCE):
            parts.append(_dumps(channels[start : start + _AT_ONCE])[1:-1])
            yield
        pieces.append(
            _dumps(topic | {"channels": []}).replace(b'"channels":[]', b'"channels":[%b]' % b",".join(parts), 1)
        )
        yield
    return _dumps(stats | {"topics": []}).replace(b'"topics":[]', b'"topics":[%b]' % b",".join(pieces), 1)


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _channel(channel: Channel, include_clients: bool, quantiles: Sequence[float]) -> Plain:
    return {
        "channel_name": channel.name,
        "depth": channel.depth,
        "backend_depth": channel.cold,
        "in_flight_count": channel.in_flight,
        "deferred_count": channel.deferred,
        "message_count": channel.messages,
        "requeue_count": channel.requeued,
        "timeout_count": channel.timed_out,
        "dropped_count": channel.dropped,
        "client_count": len(channel.consumers),
        "clients": [_consumer(one) for one in channel.consumers] if include_clients else None,
        "paused": channel.paused,
        "e2e_processing_latency": latency.summary([channel.latency] if channel.latency is not None else [], quantiles),
    }


def _consumer(consumer: ChannelConsumer) -> Plain:
    receiver = consumer.receiver
    return client_stats(receiver) if isinstance(receiver, ClientConnection) else {}


def client_stats(connection: ClientConnection, topic: str = "") -> Plain:
    """One client. topic: include only what it published to this topic, if given."""
    client, consumer, transport = connection.client, connection.consumer, connection.transport
    version, cipher = transport.tls.terms if transport.tls is not None and transport.secure else ("", "")
    stats: Plain = {
        "client_id": client.client_id,
        "hostname": client.hostname,
        "version": "V2",
        "remote_address": transport.address,
        "state": connection.state.number,
        "ready_count": consumer.ready if consumer else 0,
        "in_flight_count": consumer.in_flight if consumer else 0,
        "message_count": consumer.sent if consumer else 0,
        "finish_count": consumer.finished if consumer else 0,
        "requeue_count": consumer.requeued if consumer else 0,
        "connect_ts": int(transport.connected),
        "sample_rate": client.sample_rate,
        "deflate": client.agreed.deflate,
        "snappy": client.agreed.snappy,
        "user_agent": client.user_agent,
    }
    authorization = connection.authorization
    if authorization is not None:
        stats["authed"] = True
        stats["auth_identity"] = authorization.identity
        stats["auth_identity_url"] = authorization.identity_url
    counts = [{"topic": name, "count": n} for name, n in connection.published.items() if not topic or name == topic]
    if counts:
        stats["pub_counts"] = counts
    return stats | {
        "tls": transport.secure,
        "tls_cipher_suite": cipher,
        "tls_version": version.replace("TLSv", "TLS"),
        "tls_negotiated_protocol": "",
        "tls_negotiated_protocol_is_mutual": False,
    }


def _memory() -> Plain:
    return {
        "heap_objects": sys.getallocatedblocks(),
        "heap_idle_bytes": 0,
        "heap_in_use_bytes": resident_bytes(),
        "heap_released_bytes": 0,
        "gc_pause_usec_100": 0,
        "gc_pause_usec_99": 0,
        "gc_pause_usec_95": 0,
        "next_gc_bytes": 0,
        "gc_total_runs": sum(generation["collections"] for generation in gc.get_stats()),
    }


def resident_bytes() -> int:
    """How much memory this process uses, where the system provides it."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def as_text(stats: Plain) -> str:
    """The statistics as text, for people."""
    return in_one(writing_text(stats))


def writing_text(stats: Plain) -> Steps[str]:
    """As `as_text`, with pauses between channels."""
    uptime = time.time() - stats["start_time"]
    lines = [
        f"nsqd v{stats['version']} (q-broker, Python {sys.version_info.major}.{sys.version_info.minor})",
        f"start_time {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(stats['start_time']))}",
        f"uptime {duration(uptime)}",
        "",
        f"Health: {stats['health']}",
    ]
    if "memory" in stats:
        lines += ["", "Memory:", *(f"   {name:<25}\t{value}" for name, value in stats["memory"].items())]
    if "damaged" in stats:
        lines += ["", "Damaged:", *(f"   {_damaged_line(one)}" for one in stats["damaged"])]
    lines += ["", "Topics:" if stats["topics"] else "Topics: None"]
    for topic in stats["topics"] or ():
        lines.append(
            f"{'*P ' if topic['paused'] else '   '}[{topic['topic_name']:<15}] depth: {topic['depth']:<5}"
            f" be-depth: {topic['backend_depth']:<5} msgs: {topic['message_count']:<8} e2e%: {_percentiles(topic)}"
        )
        for channel in topic["channels"]:
            lines.append(
                f"{'   *P ' if channel['paused'] else '      '}[{channel['channel_name']:<25}]"
                f" depth: {channel['depth']:<5} be-depth: {channel['backend_depth']:<5}"
                f" inflt: {channel['in_flight_count']:<4} def: {channel['deferred_count']:<4}"
                f" re-q: {channel['requeue_count']:<5} timeout: {channel['timeout_count']:<5}"
                f" msgs: {channel['message_count']:<8} e2e%: {_percentiles(channel)}"
            )
            lines += [f"        {_client_line(client)}" for client in channel["clients"] or ()]
            yield
        lines.append("")
        yield
    lines += ["Producers:" if stats["producers"] else "Producers: None"]
    lines += [f"   {_client_line(client)}" for client in stats["producers"] or ()]
    return "\n".join(lines) + "\n"


def _damaged_line(one: Plain) -> str:
    return (
        f"[{one['topic']:<15}] msgs: {one['messages']:<8} blocks: {one['first_block']}-{one['last_block']}"
        f" ids: {one['ids'] or '-'} published: {one['published'] or '-'} {one['reason']}"
    )


def _percentiles(of: Plain) -> str:
    return ", ".join(latency.shown(one["value"]) for one in of["e2e_processing_latency"]["percentiles"] or ())


def _client_line(client: Plain) -> str:
    port = client["remote_address"].rpartition(":")[2]
    name = f"[{client['version']} {client['hostname'] + ':' + port + ' ' + client['user_agent']:<21}]"
    since = duration(time.time() - client["connect_ts"])
    if client.get("pub_counts"):
        total = sum(one["count"] for one in client["pub_counts"])
        topics = ",".join(f"{one['topic']}={one['count']}" for one in client["pub_counts"])
        return f"{name} msgs: {total:<8} topics: {topics} connected: {since}"
    return (
        f"{name} state: {client['state']} inflt: {client['in_flight_count']:<4} rdy: {client['ready_count']:<4}"
        f" fin: {client['finish_count']:<8} re-q: {client['requeue_count']:<8} msgs: {client['message_count']:<8}"
        f" connected: {since}"
    )


def duration(seconds: float) -> str:
    """`1h2m3s`, as Go writes it, without fractions."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
