"""The engines that the suite runs on, and their servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import rabbitmq
from harness.certificates import Certificates
from harness.kafka import shared_node, why_not
from harness.nats import NEW, OLD, why_no_nats
from harness.redis import why_not as why_no_redis

from tests.engines.clusters.cluster import Cluster
from tests.engines.clusters.jetstream import NatsCluster, OldNatsCluster
from tests.engines.clusters.memory import CumulativeMemoryCluster, MemoryCluster
from tests.engines.clusters.nsq import NsqdCluster, QBrokerCluster
from tests.engines.clusters.redis import RedisCluster, ValkeyCluster

KAFKA, RABBITMQ = "kafka", "rabbitmq"
KINDS: dict[str, type[Cluster]] = {
    "q-broker": QBrokerCluster,
    "nsqd": NsqdCluster,
    "valkey": ValkeyCluster,
    "redis": RedisCluster,
    "memory": MemoryCluster,
    "memory-cumulative": CumulativeMemoryCluster,
    "nats": NatsCluster,
    "nats-2.9": OldNatsCluster,
}


def _unless(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(reason), reason=reason)


MARKS = {
    "nsqd": [pytest.mark.nsqd],
    "nats": [_unless(why_no_nats(NEW))],
    "nats-2.9": [_unless(why_no_nats(OLD)), pytest.mark.slow],
    KAFKA: [pytest.mark.slow, pytest.mark.timeout(300)],
    RABBITMQ: [pytest.mark.slow, pytest.mark.timeout(300)],
}
LATE = (KAFKA, RABBITMQ)  # whose classes import what few tests need
ALL = [pytest.param(kind, marks=MARKS.get(kind, [])) for kind in (*KINDS, *LATE)]
WITH_SERVER = [each for each in ALL if each.values[0] in LATE or KINDS[str(each.values[0])].has_server]


def cluster_class(kind: str) -> type[Cluster]:
    if kind == KAFKA:
        if reason := why_not():
            pytest.skip(reason)
        from tests.engines.clusters.kafka import KafkaCluster

        return KafkaCluster
    if kind == RABBITMQ:
        if reason := rabbitmq.why_not():
            pytest.skip(reason)
        from tests.engines.clusters.rabbitmq import RabbitCluster

        return RabbitCluster
    found = KINDS[kind]
    if issubclass(found, RedisCluster) and (reason := why_no_redis(found.kind)):
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a Kafka that all tests share: each has topics and groups of its own."""
    if reason := why_not():
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    return shared_node((base.parent if is_worker else base) / "kafka", os.getppid() if is_worker else os.getpid())


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory, _nothing_is_left_behind: None) -> Iterator[dict[str, Cluster]]:
    """The servers that tests share, by kind; each is started for its first test."""
    running: dict[str, Cluster] = {}
    yield running
    for each in running.values():
        each.close()


def _shared(kind: str, request: pytest.FixtureRequest) -> Cluster:
    running: dict[str, Cluster] = request.getfixturevalue("_running")
    rooms: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    made = cluster_class(kind)
    if kind == KAFKA and kind not in running:
        running[kind] = made(rooms.mktemp(kind), request.getfixturevalue("kafka"))  # type: ignore[call-arg]
    elif not made.has_server:  # as cheap as a topic, and bound to the loop of one test
        return made(rooms.mktemp(kind))  # type: ignore[call-arg]
    elif kind not in running:
        server = made(rooms.mktemp(kind))  # type: ignore[call-arg]
        server.start()
        running[kind] = server
    return running[kind]


@pytest.fixture(params=ALL)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """A server that tests share: leave it as it was."""
    return _shared(request.param, request)


@pytest.fixture(params=WITH_SERVER)
def server(request: pytest.FixtureRequest) -> Cluster:
    """A server that tests share, and not an engine without one."""
    return _shared(request.param, request)


@pytest.fixture(params=WITH_SERVER)
def own_server(request: pytest.FixtureRequest, tmp_path: Path, _nothing_is_left_behind: None) -> Iterator[Cluster]:
    """A server for this test alone: it may be stopped, killed and frozen."""
    made = cluster_class(request.param)(tmp_path / "server")  # type: ignore[call-arg]
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def _secured(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, _nothing_is_left_behind: None
) -> Iterator[Callable[[str], Cluster]]:
    running: dict[str, Cluster] = {}

    def make(kind: str) -> Cluster:
        if kind not in running:
            server = cluster_class(kind).secured(tmp_path_factory.mktemp(f"{kind}-secured"), certificates)
            server.start()
            running[kind] = server
        return running[kind]

    yield make
    for each in running.values():
        each.close()


@pytest.fixture(params=WITH_SERVER)
def secured(request: pytest.FixtureRequest, _secured: Callable[[str], Cluster]) -> Cluster:
    """A server that wants TLS and a password, which tests share."""
    return _secured(request.param)
