"""Gateways for tests: one for all that leave it as it was, and fresh ones for who floods or stops them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from harness.brokers import Broker
from harness.gateway import Gateway
from harness.shell import Shell

from tests.engines.nsq.conftest import tidy

__all__ = ["tidy"]

MakeGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def gateway(broker: Broker) -> Iterator[Gateway]:
    """A gateway that many tests use: leave it as it was."""
    shell = Shell()
    made = Gateway(shell, broker)
    yield made
    made.close()
    shell.close()


@pytest.fixture
def make_gateway(shell: Shell) -> Iterator[MakeGateway]:
    """Starts gateways for this test alone: make_gateway(broker, *flags)."""
    gateways: list[Gateway] = []

    def make(broker: Broker, *flags: str, **more: str) -> Gateway:
        gateways.append(Gateway(shell, broker, *flags, **more))
        return gateways[-1]

    yield make
    for made in gateways:
        made.close()
