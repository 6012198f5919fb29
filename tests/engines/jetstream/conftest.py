"""Servers for what only JetStream has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from harness.nats import NEW, NatsServer, why_no_nats

MakeNats = Callable[..., NatsServer]


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_behind: None) -> Iterator[NatsServer]:
    """A server that tests share: each has topics of its own."""
    if reason := why_no_nats(NEW):
        pytest.skip(reason)
    server = NatsServer(NEW, tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.close()


@pytest.fixture
def make_nats(tmp_path: Path, _nothing_is_left_behind: None) -> Iterator[MakeNats]:
    """Starts a server with lines of configuration, for one test."""
    if reason := why_no_nats(NEW):
        pytest.skip(reason)
    made: list[NatsServer] = []

    def make(config: Sequence[str] = ()) -> NatsServer:
        server = NatsServer(NEW, tmp_path / f"nats-{len(made)}", config)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        if server.process is not None:
            server.thaw()
        server.close()
