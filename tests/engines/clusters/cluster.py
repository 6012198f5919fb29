"""What the engine suite needs of an engine's server. In: a directory. Out: an engine, and a view of its queues.

The view is not made by the code under test: it comes from another client, or from the server's own interface.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.certificates import Certificates

from qtools.engines.choice import BrokerFlags, choose_broker, engine_of
from qtools.engines.connection_options import ConnectionFlags
from qtools.engines.contract import Engine

DEADLINE = 30.0  # s
DEFAULTS = ConnectionFlags({}, {})


class Cluster:
    """One server of one engine. A subclass provides, for the tests of messages:

        url                    where it is
        start, close           run it, end it with all that it has started
        make_topic             a topic, and channels that get what is published from then on
        fill                   messages from another client
        drain                  what another client reads from a channel, and finishes
        left                   how many messages of a channel are not finished
        pause                  hold a channel's messages back, if the engine has that capability

    for the tests of faults:

        stop, kill             end it in order, or by SIGKILL; `start` then brings it back at its address
        freeze, thaw           SIGSTOP, SIGCONT
        keeps_after_kill       whether what it has confirmed outlives a SIGKILL
        noticing, freeze_time  settings with which client and server notice within `freeze_time` s that the other one
                               is gone, or frozen

    for the tests of time:

        short_timeout          settings with which a client that seems to be stuck for `short_time` s would lose what it
                               has in flight

    and for the tests of security a class method `secured`: a server that wants TLS and a password. Its `url` is the one
    with TLS, `plain_url` the same without TLS.

    What the server cannot do although its engine can is a class attribute: keeps_after_kill, has_history,
    keeps_without_channels.
    """

    has_server = True  # a process that can be stopped, killed and frozen
    keeps_after_kill = True
    noticing = DEFAULTS
    freeze_time = 3.0  # s
    short_timeout = DEFAULTS
    short_time = 0.5  # s
    has_history = True  # whether its `since` and `peek` can be used: some servers of an engine have them, others do not
    keeps_without_channels = True  # whether a topic keeps what is published before it has a channel
    fields: Mapping[str, Any] = {}  # settings that every client needs
    environ: Mapping[str, str] = {}  # with the right password
    wrong_environ: Mapping[str, str] = {}  # with a wrong one

    @classmethod
    def secured(cls, room: Path, certificates: Certificates) -> Cluster:
        raise NotImplementedError

    @property
    def url(self) -> str:
        raise NotImplementedError

    @property
    def plain_url(self) -> str:
        """`url` without TLS."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme.removesuffix('s')}://{rest}"

    @property
    def tls_url(self) -> str:
        """`url` with TLS."""
        scheme, _, rest = self.plain_url.partition("://")
        return f"{scheme}s://{rest}"

    def engine(
        self, settings: ConnectionFlags = DEFAULTS, *, url: str = "", environ: Mapping[str, str] | None = None
    ) -> Engine:
        """An engine as a command makes it. settings: besides those that every client needs; None leaves one out."""
        choice = choose_broker(BrokerFlags(broker=[url or self.url]), environ={})
        fields = {key: value for key, value in {**self.fields, **settings.fields}.items() if value is not None}
        flags = settings._replace(fields=fields)
        return engine_of("tests", choice, flags, self.environ if environ is None else environ)

    # ── the server ──

    def start(self) -> None:
        """Start it, and return when it answers."""
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        raise NotImplementedError

    def freeze(self) -> None:
        raise NotImplementedError

    def thaw(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    # ── its queues, seen by another client ──

    async def make_topic(self, topic: str, *channels: str, partitions: int = 1) -> None:
        """partitions: for an engine that has them."""
        raise NotImplementedError

    async def fill(self, topic: str, bodies: Sequence[bytes]) -> None:
        raise NotImplementedError

    async def drain(self, topic: str, channel: str) -> list[bytes]:
        """In the order in which they come."""
        raise NotImplementedError

    async def left(self, topic: str, channel: str) -> int:
        raise NotImplementedError

    async def pause(self, topic: str, channel: str) -> None:
        """For an engine with the capability `pause`."""
        raise NotImplementedError

    async def until_left(self, topic: str, channel: str, count: int) -> None:
        """Return when `count` messages of a channel are not finished."""
        deadline = time.monotonic() + DEADLINE
        while (found := await self.left(topic, channel)) != count:
            assert time.monotonic() < deadline, f"{found} messages of {topic}/{channel} are not finished, not {count}"
            await asyncio.sleep(0.02)
