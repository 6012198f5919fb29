"""What the tests of JetStream share: an engine for a server, and NATS's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from harness.nats import NatsServer, nats_client

from qtools.engines.choice import BrokerFlags, ConnectionFlags, choose_broker, engine_of
from qtools.engines.contract import Engine


def engine(url: str, environ: Mapping[str, str] | None = None, fields: Any = None, **options: str) -> Engine:
    """The engine for `url`, which may be "HOST:PORT"."""
    url = url if "://" in url else f"nats://{url}"
    choice = choose_broker(BrokerFlags(broker=[url]), environ={})
    return engine_of("tests", choice, ConnectionFlags(fields or {}, options), environ or {})


@asynccontextmanager
async def streams(server: NatsServer, **options: Any) -> AsyncIterator[Any]:
    """JetStream, by NATS's own client."""
    async with nats_client(server.address, **options) as client:
        yield client.jetstream()
