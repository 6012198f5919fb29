"""What a run of q-pubsub-http needs, as plain data: the worker never sees click."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qtools.cli.metrics.operations import OperationsOptions
from qtools.engines.contract import Engine

if TYPE_CHECKING:
    from qtools.schemas.decoding import BatchDecoder

BACKLOG = 10_000


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """Times in s, sizes in bytes. hosts: None for any Host. backlog: in messages; None for BACKLOG."""

    engine: Engine
    operations: OperationsOptions = field(default_factory=lambda: OperationsOptions(drain_timeout=5.0))
    http_address: str = "127.0.0.1:8080"
    https_cert: str = ""
    https_key: str = ""
    token_file: str = ""
    hosts: frozenset[str] | None = None
    origins: frozenset[str] = frozenset()
    behind_proxy: bool = False
    workers: int = 1
    max_in_flight: int = 2500
    max_msg_size: int = 1024 * 1024
    max_body_size: int = 5 * 1024 * 1024
    max_head_size: int = 64 * 1024
    max_connections: int = 10_000
    max_subscriptions: int | None = None
    rate: float | None = None
    publish_timeout: float = 10.0
    request_timeout: float = 30.0
    idle_timeout: float = 300.0
    heartbeat: float = 15.0
    idempotency_window: float = 600.0
    backlog: int | None = None
    max_memory: int = 1 << 30
    decoder: BatchDecoder | None = None
