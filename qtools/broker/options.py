"""What q-broker can be told: nsqd's options by nsqd's names, with nsqd's defaults.

In: values from the command line. Out: one plain object. Durations are seconds, sizes bytes. An option that
q-broker does not act on is not here. Source of names and defaults: nsqd 1.3.0, nsqd/options.go.

Different from nsqd: it listens on this machine only unless told otherwise.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, fields
from typing import Any

from qtools.engines.nsq.protocol.command_reader import CommandLimits
from qtools.engines.nsq.protocol.negotiate import ServerLimits

# nsqd's VERSION is what clients and nsqadmin look at to know which commands there are.
NSQD_VERSION = "1.3.0"

LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}  # nsqd's names, Python's numbers


@dataclass(slots=True)
class Options:
    """All of them; `None` for an address means that door stays closed."""

    tcp_address: str = "127.0.0.1:4150"
    http_address: str | None = "127.0.0.1:4151"
    https_address: str | None = "127.0.0.1:4152"  # only with a certificate
    broadcast_address: str = field(default_factory=socket.gethostname)
    broadcast_tcp_port: int = 0  # 0: the one it listens on
    broadcast_http_port: int = 0
    nsqlookupd_tcp_addresses: tuple[str, ...] = ()

    id: int | None = None  # of this broker among others: a part of every message's id

    data_path: str = ""  # where messages are kept; "": in memory only
    sync: str = "full"  # what OK survives: "full" a power failure, "normal" the end of the process, "off" neither
    retain_age: float = 0.0  # how long messages stay that everybody has finished
    retain_size: int = 0  # or how many bytes of them, for each topic
    mem_queue_size: int = 10_000  # messages of a channel in memory; an ephemeral one has no more
    msg_timeout: float = 60.0
    max_msg_timeout: float = 900.0
    max_msg_size: int = 1024 * 1024
    max_body_size: int = 5 * 1024 * 1024
    max_req_timeout: float = 3600.0
    max_memory: int = 0  # for what clients have begun to send and not read; 0: a quarter of the memory there is

    max_heartbeat_interval: float = 60.0
    max_rdy_count: int = 2500
    max_output_buffer_size: int = 64 * 1024
    output_buffer_timeout: float = 0.25  # what a client is told; what there is to send is sent at once
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
    tls_required: str = "false"  # "false", "true", "tcp-https": TCP needs TLS, HTTP may stay in clear

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

    # A client that was never heard of for this long is gone; half of it is the default heartbeat interval.
    client_timeout = 60.0

    def first_id(self, wall: int) -> int:
        """The id of the first message of a topic that is made at `wall`, ns since 1970.

        With an `id` it is in the highest 10 of 63 bits and time, in steps of 256 ns, in the rest, which lasts until
        2043: no two brokers then give the same. A topic would have to take in 3.9 million messages a second for as
        long as it lives to meet the ids of its next life.
        """
        return wall if self.id is None else self.id << 53 | wall >> 8

    def limits(self) -> CommandLimits:
        """What a client may send."""
        return CommandLimits(
            max_msg_size=self.max_msg_size,
            max_body_size=self.max_body_size,
            max_req_timeout_ms=round(self.max_req_timeout * 1000),
        )

    def grants(self, *, tls: bool, snappy: bool) -> ServerLimits:
        """What a client may ask for; `tls` and `snappy` say whether they can be had at all."""
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
        """Every option as nsqd's /config shows it: durations as ns."""
        shown: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, float):
                value = round(value * 1e9)
            elif isinstance(value, tuple):
                value = list(value)
            shown[one.name] = "" if value is None else value
        return shown
