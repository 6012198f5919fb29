"""The options of q-broker: nsqd's options with nsqd's names and defaults.

In: values from the command line. Out: one plain object. Durations are in seconds, sizes in bytes. Options on which
q-broker does not act are not here. Source of names and defaults: nsqd 1.3.0, nsqd/options.go.

Unlike nsqd, q-broker listens on this machine only, unless other addresses are given.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, fields
from typing import Any

from qtools.engines.nsq.protocol.command_reader import CommandLimits
from qtools.engines.nsq.protocol.negotiate import ServerLimits

# Clients and nsqadmin conclude from nsqd's VERSION which commands there are.
NSQD_VERSION = "1.3.0"

LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}  # nsqd's names, Python's numbers


@dataclass(slots=True)
class Options:
    """All options. An address of None means that there is no such server."""

    tcp_address: str = "127.0.0.1:4150"
    http_address: str | None = "127.0.0.1:4151"
    https_address: str | None = "127.0.0.1:4152"  # only with a certificate
    broadcast_address: str = field(default_factory=socket.gethostname)
    broadcast_tcp_port: int = 0  # 0: the port it listens on
    broadcast_http_port: int = 0
    nsqlookupd_tcp_addresses: tuple[str, ...] = ()

    id: int | None = None  # the number of this broker among others: a part of each message id

    data_path: str = ""  # the directory of the messages; "": in memory only
    # what a confirmed message survives: "full" a power failure, "normal" a crash of the broker, "off" neither
    sync: str = "full"
    retain_age: float = 0.0  # how long messages are kept that all channels have finished
    retain_size: int = 0  # or how many bytes of them, of each topic
    mem_queue_size: int = 10_000  # messages of a channel in memory; an ephemeral channel has no others
    msg_timeout: float = 60.0
    max_msg_timeout: float = 900.0
    max_msg_size: int = 1024 * 1024
    max_body_size: int = 5 * 1024 * 1024
    max_req_timeout: float = 3600.0
    # for unfinished commands and unread responses of all clients; 0: a quarter of the machine's memory
    max_memory: int = 0

    max_heartbeat_interval: float = 60.0
    max_rdy_count: int = 2500
    max_output_buffer_size: int = 64 * 1024
    output_buffer_timeout: float = 0.25  # only reported to clients: output is sent at once
    min_output_buffer_timeout: float = 0.025
    max_output_buffer_timeout: float = 30.0
    max_channel_consumers: int = 0  # 0: any number

    snappy: bool = True
    deflate: bool = True
    max_deflate_level: int = 6

    tls_cert: str | None = None
    tls_key: str | None = None
    tls_root_ca_file: str | None = None
    tls_min_version: str = "tls1.2"
    tls_client_auth_policy: str = ""  # "", "require", "require-verify"
    tls_required: str = "false"  # "false", "true", or "tcp-https": TCP requires TLS, plain HTTP is allowed

    statsd_address: str = ""
    statsd_prefix: str = "nsq.%s"  # %s: the broadcast address and the HTTP port
    statsd_interval: float = 60.0
    statsd_mem_stats: bool = True
    statsd_udp_packet_size: int = 508
    statsd_exclude_ephemeral: bool = False

    e2e_processing_latency_percentiles: tuple[float, ...] = ()
    e2e_processing_latency_window_time: float = 600.0

    auth_http_addresses: tuple[str, ...] = ()
    http_client_connect_timeout: float = 2.0
    http_client_request_timeout: float = 5.0
    log_prefix: str = "q-broker: "
    log_level: str = "info"

    # A client that sends nothing for this long is disconnected. Half of it is the default heartbeat interval.
    client_timeout = 60.0

    def first_id(self, wall: int) -> int:
        """The id of the first message of a topic that is made at `wall`, ns since 1970.

        With an `id`, the highest 10 of 63 bits are the id, and the others the time in steps of 256 ns, which lasts
        until 2043: no two brokers then use the same ids. After a restart, ids could repeat only if the topic had
        received 3.9 million messages a second all the time.
        """
        return wall if self.id is None else self.id << 53 | wall >> 8

    def limits(self) -> CommandLimits:
        """The limits of what a client may send."""
        return CommandLimits(
            max_msg_size=self.max_msg_size,
            max_body_size=self.max_body_size,
            max_req_timeout_ms=round(self.max_req_timeout * 1000),
        )

    def grants(self, *, tls: bool, snappy: bool) -> ServerLimits:
        """What a client may ask for in IDENTIFY. tls, snappy: whether they are available."""
        return ServerLimits(
            max_rdy_count=self.max_rdy_count,
            msg_timeout=round(self.msg_timeout * 1000),
            max_msg_timeout=round(self.max_msg_timeout * 1000),
            heartbeat_interval=round(self.client_timeout * 500),
            max_heartbeat_interval=round(self.max_heartbeat_interval * 1000),
            output_buffer_timeout=round(self.output_buffer_timeout * 1000),
            min_output_buffer_timeout=round(self.min_output_buffer_timeout * 1000),
            max_output_buffer_timeout=round(self.max_output_buffer_timeout * 1000),
            max_output_buffer_size=self.max_output_buffer_size,
            tls=tls,
            snappy=self.snappy and snappy,
            deflate=self.deflate,
            max_deflate_level=self.max_deflate_level,
            auth_required=bool(self.auth_http_addresses),
        )

    def by_name(self) -> dict[str, Any]:
        """All options as nsqd's /config shows them: durations in ns."""
        shown: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float):
                value = round(value * 1e9)
            elif isinstance(value, tuple):
                value = list(value)
            shown[one.name] = "" if value is None else value
        return shown
